// Which page is shown: the fragment of the URL, `#/events/ID?pattern=task.*`, so that every view has a link.

import { useEffect, useState } from "./vendor/htm-preact.js";
import { url } from "./api.js";

/**
 * The link to a page, or to one thing on it.
 * @param {string} page Such as "events".
 * @param {string | null} [id]
 * @param {object} [query]
 */
export const at = (page, id = null, query = {}) => url(`#/${page}${id === null ? "" : `/${encodeURIComponent(id)}`}`, query);

/**
 * Go there; `replace` leaves no step to go back to, as for a filter that is typed.
 * @param {string} page
 * @param {string | null} [id]
 * @param {object} [query]
 */
export function go(page, id = null, query = {}, { replace = false } = {}) {
  const link = at(page, id, query);
  if (!replace) location.hash = link;
  else if (link !== location.hash) {
    history.replaceState(null, "", link);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  }
}

/** Change a part of the query of the page that is shown: null and "" take a part away. It leaves no step to go back to. */
export function refine(changes) {
  const { page, id, query } = read();
  go(page, id, { ...query, ...changes }, { replace: true });
}

/** @returns {{page: string, id: string | null, query: Object<string, string>}} What the URL says now. */
export function useRoute() {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const slash = path.indexOf("/");
  const page = slash < 0 ? path : path.slice(0, slash);
  return { page: page || "overview", id: slash < 0 ? null : decoded(path.slice(slash + 1)), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a link that somebody cut
  }
}
