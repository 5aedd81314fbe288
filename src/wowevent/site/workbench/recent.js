// The conversations with the newest events, as far as a look at the end of the log tells.

import { useEffect, useState } from "../kit.js";
import { get } from "../api.js";

const BACK = 86_400; // seconds
const READ = 1000; // events, the newest
const SHOWN = 50; // conversations

/** @returns {{rows: object[] | null, problem: Error | null, refresh: () => void}} */
export function useRecent() {
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState(/** @type {{rows: object[] | null, problem: Error | null}} */ ({ rows: null, problem: null }));
  useEffect(() => {
    const ending = new AbortController();
    recent(ending.signal).then(
      (rows) => ending.signal.aborted || setState({ rows, problem: null }),
      (problem) => ending.signal.aborted || setState({ rows: null, problem }),
    );
    return () => ending.abort();
  }, [turn]);
  return { ...state, refresh: () => setTurn((now) => now + 1) };
}

async function recent(signal) {
  const since = new Date(Date.now() - BACK * 1000).toISOString();
  const { events } = await get("/events", { order: "newest", stored_from: since, limit: READ }, { signal });
  return gathered(events.reverse()).slice(0, SHOWN);
}

/** Events, oldest first, by what they belong to, the newest first. */
function gathered(events) {
  const found = new Map();
  for (const { event, stored_at: time } of events) {
    const id = event.correlation_id ?? event.event_id;
    const row = found.get(id) ?? { id, topic: event.topic, agents: [], count: 0, from: time, to: time };
    if (event.source_agent && !row.agents.includes(event.source_agent)) row.agents.push(event.source_agent);
    found.set(id, Object.assign(row, { count: row.count + 1, to: time }));
  }
  return [...found.values()].sort((a, b) => b.to - a.to);
}
