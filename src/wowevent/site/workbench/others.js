// Events on the same topic that did not fail, to hold those that did against.

import { useEffect, useState } from "../kit.js";
import { get } from "../api.js";
import { exact } from "../json.js";

const BEFORE = 3600; // seconds before the first letter from which the log is looked through
const READ = 200; // events of it,
const TRIED = 10; // of which so many are asked for whether they are dead letters of somebody
const WANTED = 1;

/**
 * One of them, looked for once a group; none while the letters are not known.
 * @returns {{found: {event: object}[], problem: Error | null, looking: boolean}}
 */
export function useOthers(group, letters) {
  const [state, setState] = useState(/** @type {{found: {event: object}[], problem: Error | null, looking: boolean}} */ ({ found: [], problem: null, looking: true }));
  const ready = Boolean(group && letters);
  useEffect(() => {
    if (!ready) return undefined;
    const ending = new AbortController();
    const dead = new Set(letters.map((letter) => letter.event.event_id));
    othersOf(group, dead, ending.signal).then(
      (found) => ending.signal.aborted || setState({ found, problem: null, looking: false }),
      (problem) => ending.signal.aborted || setState({ found: [], problem, looking: false }),
    );
    return () => ending.abort();
  }, [ready]);
  return state;
}

async function othersOf(group, dead, signal) {
  const start = new Date((group.first - BEFORE) * 1000).toISOString();
  const { events } = await get("/events", { pattern: group.topics[0], start_time: start, limit: READ }, { signal, parse: exact });
  const candidates = events.filter(({ event }) => !dead.has(event.event_id)).reverse();
  const found = [];
  for (const each of candidates.slice(0, TRIED)) {
    if (found.length === WANTED) break;
    const { dead_letters: letters } = await get("/dead-letters", { event_id: each.event.event_id, limit: 1 }, { signal });
    if (letters.length === 0) found.push(each);
  }
  return found;
}
