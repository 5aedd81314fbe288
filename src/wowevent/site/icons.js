// The icons, each a line that is drawn.

import { html } from "./html.js";

const ICONS = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  events: "M4 6h16M4 12h16M4 18h10",
  subscriptions: "M4 13v5a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-5M4 13l3-8h10l3 8M4 13h5l1 3h4l1-3h5",
  letters: "M4 6h16v12H4zM4 7l8 6 8-6",
  conversations: "M6 4v10a3 3 0 0 0 3 3h5M6 8h8M14 6h6v4h-6zM14 15h6v4h-6z",
  replays: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4",
  schemas: "M8 4c-2 0-3 1-3 3v2c0 2-1 3-2 3 1 0 2 1 2 3v2c0 2 1 3 3 3M16 4c2 0 3 1 3 3v2c0 2 1 3 2 3-1 0-2 1-2 3v2c0 2-1 3-3 3",
  agents: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c0-4 4-6 8-6s8 2 8 6",
  routers: "M12 12v8M8 20h8M12 12a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM7 14a6 6 0 0 1 0-8M17 6a6 6 0 0 1 0 8",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  moon: "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z",
  leave: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  back: "M15 6l-6 6 6 6",
  next: "M9 6l6 6-6 6",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  edit: "M4 20h4L19 9l-4-4L4 16z",
  send: "M4 12l16-8-5 16-3-7z",
  add: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l5 5",
  check: "M5 12l5 5L19 7",
  copy: "M9 9h11v11H9zM5 15V4h11",
  close: "M6 6l12 12M18 6L6 18",
  alert: "M12 4l9 16H3zM12 10v4M12 17h.01",
  calm: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8.5 14.5c2 2 5 2 7 0M9 9.5h.01M15 9.5h.01",
  broom: "M14 4l6 6M17 7l-6 6M11 11l4 4-5 5H4v-6l5-5z",
};

/** One of the icons by its name; it says nothing to who does not see it. */
export const Icon = ({ name }) => html`<svg class="glyph" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
