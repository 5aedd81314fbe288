// How far something is.

import { html } from "../kit.js";
import { number } from "../words.js";

/** So many of so many; `of` is null where that is not known. */
export function Progress({ label, done, of }) {
  if (of === null || of === undefined) return html`<span class="progress"><span>${number(done)}</span></span>`;
  return html`<span class="progress"><progress aria-label=${label} value=${done} max=${Math.max(of, 1)}></progress><span>${number(done)} of ${number(of)}</span></span>`;
}
