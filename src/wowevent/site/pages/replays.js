// Replays: a range of the log published again, into a topic where it does no harm; how far each is.

import { Badge, Button, Card, Empty, Failure, Field, Icon, Page, Table, Time, html, useData, useState } from "../kit.js";
import { ask } from "../ask.js";
import { get, part, post, remove } from "../api.js";
import { clock, many, span } from "../words.js";
import { Progress } from "../workbench/progress.js";

const EVERY = 1_000; // milliseconds
const COUNTED = 1_000; // events up to which a range is counted before it is replayed
const TONES = { running: "accent", paused: "warn", done: "good", cancelled: "", failed: "bad" };
const SPEEDS = [["0", "at once"], ["1", "as far apart as they were"], ["2", "twice as fast"], ["10", "ten times as fast"], ["100", "a hundred times as fast"]];
const WORD = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/; // a pattern that is a topic

export default function Replays({ query }) {
  const { data, problem, refresh } = useData("/replays", { every: EVERY });
  const [counts, setCounts] = useState({});
  const begun = (replay, count) => {
    setCounts((old) => ({ ...old, [replay.id]: count }));
    refresh();
  };
  return html`
    <${Page} title="Replays" lead="A part of the history, published again as new events: to see what a handler would make of it, send it to a topic of its own.">
      <${Order} query=${query} begun=${begun} />
      <${Failure} problem=${problem} retry=${refresh} />
      <${Card} tight title="Under way, and ended" lead="Of all processes; one ends with the process that has it.">
        ${data?.complete === false && html`<p class="note warn">Other processes cannot be heard now: these are the replays of the one that answers this page.</p>`}
        <${Table} label="Replays" rows=${data && data.replays} rowKey=${(row) => row.id} columns=${columns(counts, refresh)}
          empty=${html`<${Empty} title="No replays yet" icon="replays">One that is begun above stands here, with how far it is.</${Empty}>`} />
      </${Card}>
    </${Page}>
  `;
}

/** The form. */
function Order({ query, begun }) {
  const [pattern, setPattern] = useState(query.pattern ?? "");
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const [correlation, setCorrelation] = useState(query.correlation_id ?? "");
  const [speed, setSpeed] = useState("0");
  const [most, setMost] = useState("");
  const [topic, setTopic] = useState(null);
  const target = topic ?? (WORD.test(pattern) ? `sandbox.${pattern}` : "sandbox.replay");
  const order = said({ topic: target, pattern, start_time: iso(from), end_time: iso(to), correlation_id: correlation.trim(), speed_multiplier: Number(speed), max_events: most ? Number(most) : null });
  const start = async (event) => {
    event.preventDefault();
    let count = null;
    const replay = await ask(question(order, (found) => (count = found)));
    if (replay !== undefined) begun(replay, count);
  };
  return html`
    <${Card} title="Replay a part of the history">
      <form onSubmit=${start}>
        <div class="order">
          <${Field} label="Topics" value=${pattern} onChange=${setPattern} mono placeholder="order.*" hint="A topic or a pattern; empty is all." />
          <${Field} label="From" type="datetime-local" step="1" value=${from} onChange=${setFrom} hint="By the events' own times; empty is the beginning." />
          <${Field} label="To" type="datetime-local" step="1" value=${to} onChange=${setTo} hint="Empty is now." />
          <${Field} label="Conversation" value=${correlation} onChange=${setCorrelation} mono hint="A correlation id; empty is any." />
          <${Field} label="At most" type="number" min="1" value=${most} onChange=${setMost} placeholder="all" hint="So many events." />
          <${Field} label="How fast" type="select" options=${SPEEDS} value=${speed} onChange=${setSpeed} />
          <${Field} label="Into the topic" value=${target} onChange=${setTopic} mono required hint=${target.startsWith("sandbox.") ? "Whoever wants to try subscribes to it." : html`<span class="warn">Its subscribers handle them as any event.</span>`} />
        </div>
        <button type="submit" class="button primary">${Icon({ name: "replays" })}Replay…</button>
      </form>
    </${Card}>
  `;
}

const question = (order, counted) => ({
  title: "Replay?",
  says: async () => {
    const [text, count] = await countOf(order);
    counted(count);
    return html`
      <p><b>${text} will be published again into ${order.topic}</b>${order.speed_multiplier ? `, ${SPEEDS.find(([each]) => Number(each) === order.speed_multiplier)?.[1]}` : " at once"}.</p>
      <p>They are new events, which name by <code>replay_of</code> the ones they repeat. ${order.topic.startsWith("sandbox.") ? "Only who subscribes to that topic gets them." : "All who subscribe to that topic handle them."}</p>
    `;
  },
  verb: "Replay",
  run: () => post("/replays", order),
  done: () => "The replay has begun.",
});

/** How many events a range has, in words and as a number; null where there are more than are counted. */
async function countOf(order) {
  const { pattern, start_time: start, end_time: end, correlation_id: correlation, max_events: most } = order;
  const { events, next } = await get("/events", { pattern, start_time: start, end_time: end, correlation_id: correlation, limit: COUNTED });
  const whole = next === null || events.length < COUNTED;
  const count = most === undefined ? events.length : Math.min(most, events.length);
  if (whole || (most !== undefined && most <= events.length)) return [many(count, "event"), count];
  return [`${many(COUNTED, "event")} or more`, null];
}

const said = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== "" && value !== null));

const iso = (local) => (local ? new Date(local).toISOString() : "");

const columns = (counts, refresh) => [
  { title: "Into", wide: true, show: (row) => html`<span class="mono">${row.order.topic}</span><small>${range(row.order)}</small>` },
  { title: "State", show: (row) => html`<${Badge} tone=${TONES[row.state]}>${row.state}</${Badge}>${row.failure && html`<small class="bad">${row.failure.message}</small>`}` },
  { title: "Events", wide: true, show: (row) => html`<${Progress} label="Replayed" done=${row.replayed} of=${expected(row, counts)} />` },
  { title: "Begun", show: (row) => html`<${Time} at=${row.started_at} />` },
  { title: "Took", number: true, show: (row) => (row.ended_at ? span(row.ended_at - row.started_at) : "–") },
  { title: "Actions", quiet: true, show: (row) => html`<${Actions} row=${row} refresh=${refresh} />` },
];

const expected = (row, counts) => (row.state === "done" ? row.replayed : (counts[row.id] ?? row.order.event_ids?.length ?? row.order.max_events ?? null));

/** What an order reads, in words. */
function range({ pattern, start_time: start, end_time: end, correlation_id: correlation, event_ids: ids, speed_multiplier: speed }) {
  const parts = [
    ids ? many(ids.length, "chosen event") : [pattern ?? "all topics"].flat().join(", "),
    start && `from ${clock(start)}`,
    end && `to ${clock(end)}`,
    correlation && `of ${correlation}`,
    speed > 0 && (SPEEDS.find(([each]) => Number(each) === speed)?.[1] ?? `at ${speed} times their pace`),
  ];
  return parts.filter(Boolean).join(", ");
}

function Actions({ row, refresh }) {
  if (row.state !== "running" && row.state !== "paused") return null;
  const path = `/replays/${part(row.id)}`;
  const act = (question) => ask(question).then(refresh);
  const hold = { title: "Pause this replay?", says: "The step that is under way is finished; then it waits until it is resumed.", verb: "Pause", run: () => post(`${path}/pause`), done: () => "The replay waits." };
  const on = { title: "Resume this replay?", says: `It goes on into ${row.order.topic} where it was held, at its own pace.`, verb: "Resume", run: () => post(`${path}/resume`), done: () => "The replay goes on." };
  const end = { title: "Cancel this replay?", says: html`What it has published stays: ${many(row.replayed, "event")}. It cannot be resumed.`, verb: "Cancel the replay", danger: true, run: () => remove(path), done: () => "The replay is cancelled." };
  return html`<div class="actions">
    ${row.state === "running" ? html`<${Button} kind="quiet" icon="pause" onClick=${() => act(hold)}>Pause</${Button}>` : html`<${Button} kind="quiet" icon="play" onClick=${() => act(on)}>Resume</${Button}>`}
    <${Button} kind="quiet" icon="close" onClick=${() => act(end)}>Cancel</${Button}>
  </div>`;
}
