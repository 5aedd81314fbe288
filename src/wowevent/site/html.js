// Elements and hooks: htm over Preact. Pages have them from kit.js.

import { h } from "./vendor/htm-preact.js";
import htm from "./vendor/htm.js";

export { render, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";

/**
 * Elements, as in HTML. Those of a template that never change are made anew, too: htm would keep the first, which Preact links to the page that it was
 * in, and that to all that was drawn since. So the live events held every row that was ever shown.
 */
export const html = htm.bind(element);

/** @this {any} */
function element(...given) {
  this[0] = 3; // to htm: this one may change
  return h(...given);
}
