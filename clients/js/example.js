/** The page of example.html: publish, and see what comes. */

import { BusError, Client } from "./wowevent.js";

const SHOWN = 100; // events in the list

/** @type {(id: string) => any} */
const byId = (id) => document.getElementById(id);
const [connecting, publishing, events] = ["connect", "publish", "events"].map(byId);
/** @type {Client | null} */
let client = null;

connecting.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { url, token, topics } = said(connecting);
  await client?.close();
  try {
    const next = new Client(url, {
      token: token || undefined,
      agent: "page",
      retry: true,
      onState: (...now) => show(next, ...now),
    });
    client = next;
    await next.subscribe(topics.split(/[\s,]+/).filter(Boolean), list, { lost, ended });
    await next.connect();
  } catch (error) {
    byId("state").value = String(error);
  }
});

publishing.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const { topic, text } = said(publishing);
  byId("receipt").value = "on its way";
  try {
    if (!client) throw new BusError("closed", "connect first");
    const { event_id, position } = await client.publish(topic, { text });
    byId("receipt").value = `stored as ${event_id} at ${position ?? "its place"}`;
  } catch (error) {
    byId("receipt").value = `${error.code}: ${error.message}`;
  }
});

/** @returns {Record<string, string>} The fields of a form. */
function said(form) {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value)]));
}

function show(of, state, error) {
  if (of !== client) return; // one that was closed for this one
  byId("state").value = error ? `${state}: ${error.message}` : state;
  publishing.querySelector("button").disabled = state === "closed";
}

function list({ topic, source_agent, timestamp, payload }) {
  const line = document.createElement("li");
  line.textContent = `${timestamp} ${topic} ${source_agent} ${JSON.stringify(payload)}`;
  events.prepend(line);
  if (events.children.length > SHOWN) events.lastChild.remove();
}

function lost(count) {
  list({ topic: "(missing)", source_agent: "", timestamp: new Date().toISOString(), payload: { lost: count } });
}

function ended(error) {
  byId("state").value = `not subscribed: ${error.message}`;
}
