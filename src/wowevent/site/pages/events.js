// Events: what is published, live and as it was.

import { Badge, Button, Card, Choice, Empty, Failure, Field, Icon, Page, Table, Time, html, useData, useEffect, useMemo, useRef, useState } from "../kit.js";
import { follow, url } from "../api.js";
import { publish } from "../publish.js";
import { at, refine } from "../route.js";
import { many, number } from "../words.js";

const ROWS = 100; // events of the tail that are kept, the newest
const A_SECOND = 20; // that a reader could still follow; the service leaves the others out
const DRAWN = 333; // milliseconds between two drawings of the tail
const TYPED = 400; // milliseconds after the last letter until a filter holds
const PAGE = 50; // events of a page of the history
const SHOWN = 160; // characters of a payload in a row

const RANGES = [["", "All of it"], ["900", "15 minutes"], ["3600", "Hour"], ["86400", "Day"], ["between", "Between"]];
const ORDERS = [["", "Newest first"], ["oldest", "Oldest first"]];
const LEVELS = [["", "any"], ["4", "normal and above"], ["7", "high and above"], ["9", "critical"]];

export default function Events({ query }) {
  const past = query.view === "history";
  const actions = html`
    <${Choice} label="What to show" value=${past ? "history" : "live"} options=${[["live", "Live"], ["history", "History"]]} onChange=${(view) => refine({ view: view === "live" ? "" : view })} />
    <${Button} kind="primary" icon="add" onClick=${() => publish({ topic: plain(query.pattern) })}>Publish</${Button}>
  `;
  return html`
    <${Page} title="Events" lead=${past ? "What the log has." : "What is published, as it is stored."} actions=${actions}>
      ${past ? html`<${Past} query=${query} />` : html`<${Live} query=${query} />`}
    </${Page}>
  `;
}

const plain = (pattern) => (pattern && !/[*#]/.test(pattern) ? pattern : "");
const listed = (text) => (text ?? "").split(/[\s,]+/).filter(Boolean);

const trimmed = (text) => text.trim();

/** A field of the filter: what is typed holds a moment after the last letter. `shown` is how it reads, `meant` what it means. */
function Typed({ name, query, shown = trimmed, meant = trimmed, ...rest }) {
  const given = shown(query[name] ?? "");
  const [text, setText] = useState(given);
  useEffect(() => setText(given), [given]);
  useEffect(() => {
    if (text === given) return undefined;
    const timer = setTimeout(() => refine({ [name]: meant(text) }), TYPED);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<${Field} value=${text} onChange=${setText} mono ...${rest} />`;
}

// ---------------------------------------------------------------- live

function Live({ query }) {
  const [held, setHeld] = useState(false);
  const path = url("/events/stream", { pattern: listed(query.pattern), types: listed(query.types), sources: listed(query.sources), min_priority: query.min_priority, max_rate: A_SECOND });
  const { rows, skipped, lost, waiting, state, problem } = useTail(path, held);
  return html`
    <div class="filters">
      <${Typed} label="Topics" name="pattern" query=${query} placeholder="order.*" />
      <${Typed} label="Types" name="types" query=${query} placeholder="any" />
      <${Typed} label="Sources" name="sources" query=${query} placeholder="any" />
      <${Field} label="Priority" type="select" options=${LEVELS} value=${query.min_priority ?? ""} onChange=${(min_priority) => refine({ min_priority })} />
    </div>
    <${Failure} problem=${problem} />
    <${Card} tight title=${html`<${Listening} state=${state} held=${held} waiting=${waiting} />`} actions=${html`<${Button} kind="quiet" icon=${held ? "play" : "pause"} onClick=${() => setHeld(!held)}>${held ? "Go on" : "Hold"}</${Button}>`}>
      ${skipped > 0 && html`<p class="note accent" role="status">${Icon({ name: "events" })}<span>More comes than can be read: at most ${A_SECOND} a second are shown, <b>${number(skipped)}</b> were left out.</span></p>`}
      ${lost && html`<p class="note warn" role="status">${Icon({ name: "alert" })}<span>${lost}</span></p>`}
      <${Rows} label="Live events" rows=${rows} fresh empty=${html`<${Empty} title="Nothing yet" icon="events">What is published from now on appears here. <a href=${at("events", null, { ...query, view: "history" })}>Look at the history</a></${Empty}>`} />
    </${Card}>
  `;
}

function Listening({ state, held, waiting }) {
  if (held) return html`<span class="row">Held ${waiting > 0 && html`<${Badge}>${number(waiting)} came since</${Badge}>`}</span>`;
  if (state === "open") return html`<span class="row"><span class="pulse"></span>Listening</span>`;
  return state === "refused" ? "Not listening" : "Connecting…";
}

/**
 * The newest events of a stream, drawn a few times a second however many come.
 * While `held` nothing moves: what comes is kept, the newest, and counted.
 */
function useTail(path, held) {
  /** @type {{rows: any[], skipped: number, lost: string, waiting: number, state: string, problem: Error | null}} */
  const first = { rows: [], skipped: 0, lost: "", waiting: 0, state: "", problem: null };
  const [shown, setShown] = useState(first);
  const tail = useRef(first);
  const stopped = useRef(held);
  stopped.current = held;
  const draw = () => setShown((old) => (stopped.current ? { ...old, waiting: tail.current.waiting } : { ...tail.current, waiting: (tail.current.waiting = 0) }));
  useEffect(() => {
    const ending = new AbortController();
    tail.current = { ...first };
    setShown(first);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let drawing;
    const changed = (next) => {
      tail.current = { ...tail.current, ...next };
      drawing ??= setTimeout(() => {
        drawing = undefined;
        draw();
      }, DRAWN);
    };
    follow(path, {
      signal: ending.signal,
      onEvent: (stored) => changed({ rows: [row(stored), ...tail.current.rows].slice(0, ROWS), waiting: tail.current.waiting + 1 }),
      onNote: (name, data) => {
        if (name === "skipped") changed({ skipped: tail.current.skipped + data.skipped });
        if (name === "reset") changed({ lost: data.message });
      },
      onState: (state, problem) => changed({ state, problem: problem ?? null }),
    });
    return () => {
      ending.abort();
      clearTimeout(drawing);
    };
  }, [path]);
  useEffect(draw, [held]);
  return shown;
}

// ---------------------------------------------------------------- the past

function Past({ query }) {
  const [turn, setTurn] = useState(0);
  const newest = query.order !== "oldest";
  const range = query.range ?? "";
  const asked = JSON.stringify([query.pattern, query.correlation_id, query.order, range, query.from, query.until, turn]);
  const part = useMemo(() => stretch(range, query), [asked]);
  const [pages, setPages] = useState({ asked, places: [""] }); // where each page up to this one begins
  const places = pages.asked === asked ? pages.places : [""];
  const turnTo = (next) => setPages({ asked, places: next });
  const { data, problem, loading, refresh } = useData("/events", {
    query: { pattern: listed(query.pattern), correlation_id: query.correlation_id, ...part, limit: PAGE, ...(newest ? { order: "newest", before: places.at(-1) } : { after: places.at(-1) }) },
  });
  const lookAgain = () => {
    setTurn(turn + 1); // from the first page, and a last hour is another one now
    refresh(); // where all that is asked stays the same
  };
  const rows = useMemo(() => data && data.events.map(row), [data]);
  const short = data?.next && data.events.length < PAGE;
  const [back, on] = newest ? ["Newer", "Older"] : ["Earlier", "Later"];
  const empty = short
    ? html`<${Empty} title="None yet" icon="search">None of the events that were looked at fits. There are older ones.</${Empty}>`
    : html`<${Empty} title="No event fits" icon="search">Widen the time, or ask for other topics.</${Empty}>`;
  return html`
    <div class="filters">
      <${Typed} label="Topics" name="pattern" query=${query} placeholder="order.*" />
      <${Typed} label="Correlation id" name="correlation_id" query=${query} placeholder="any" />
      <${Choice} label="Order" options=${ORDERS} value=${newest ? "" : "oldest"} onChange=${(order) => refine({ order })} />
      <${Button} icon="replays" busy=${loading} onClick=${lookAgain}>Look again</${Button}>
      <${Choice} label="Time" options=${RANGES} value=${range} onChange=${(chosen) => refine({ range: chosen })} />
      ${range === "between" && MOMENTS.map(([name, label]) => html`<${Typed} key=${name} label=${label} name=${name} query=${query} shown=${local} meant=${utc} type="datetime-local" step="1" />`)}
    </div>
    <${Failure} problem=${problem} />
    <${Card} tight title=${data && (places.length > 1 || data.next ? `Page ${places.length}` : many(data.events.length, "event"))}
      actions=${html`<${Button} kind="quiet" icon="back" disabled=${places.length === 1} onClick=${() => turnTo(places.slice(0, -1))}>${back}</${Button}
        ><${Button} kind="quiet" disabled=${!data?.next} onClick=${() => turnTo([...places, data.next])}>${on}${Icon({ name: "next" })}</${Button}>`}>
      ${!problem && html`<${Rows} label="History" rows=${rows} empty=${empty} />`}
      ${short && rows.length > 0 && html`<p class="rest">Only a part of the log was looked at for this page: ${on} looks further.</p>`}
    </${Card}>
  `;
}

const MOMENTS = [["from", "Stored from"], ["until", "Stored until"]];

/** Which part of the log is asked for, by when it was stored: the times that the rows show. */
function stretch(range, { from, until }) {
  if (range === "between") return { stored_from: from, stored_until: until };
  return range ? { stored_from: new Date(Date.now() - Number(range) * 1000).toISOString() } : {};
}

/** A moment of the query, which is UTC, as its field has it: by the clock of who looks. Empty for what is none. */
export function local(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, at.getSeconds() ? 19 : 16); // as the field itself writes it
}

/** The other way round. */
function utc(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
}

// ---------------------------------------------------------------- both

function Rows({ label, rows, empty, fresh = false }) {
  const columns = [
    { title: "Topic", wide: true, show: (its) => html`<a href=${at("events", its.id)}>${its.topic}</a>${its.type !== its.topic && html`<small>${its.type}</small>`}` },
    { title: "From", wide: true, show: (its) => its.source || html`<span class="soft">–</span>` },
    { title: "Payload", wide: true, show: (its) => html`<code class="soft break">${its.excerpt}</code>` },
    { title: "Priority", show: (its) => html`<${Priority} level=${its.priority} />` },
    { title: "Stored", number: true, show: (its) => html`<${Time} at=${its.at} />` },
  ];
  return html`<${Table} label=${label} columns=${columns} rows=${rows} rowKey=${(its) => its.position} rowClass=${() => (fresh ? "fresh" : "")} still empty=${empty} />`;
}

function Priority({ level }) {
  const tone = level >= 9 ? "bad" : level >= 7 ? "warn" : "";
  return html`<${Badge} tone=${tone}>${level}</${Badge}>`;
}

/** What a row needs of an event: two hundred payloads of the largest kind would be 50 MB. */
function row({ event, position, stored_at: stored }) {
  const text = JSON.stringify(event.payload);
  const excerpt = text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
  return { id: event.event_id, topic: event.topic, type: event.event_type, source: event.source_agent, priority: event.priority, position, at: stored, excerpt };
}
