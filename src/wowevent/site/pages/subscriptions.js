// Subscriptions: what waits for whom, what is paused, and what can be done about it.

import { Badge, Button, Card, Empty, Facts, Failure, Field, Loading, Page, Stat, Stats, Table, Time, html, useData, useEffect, useMemo, useRef, useState } from "../kit.js";
import { ask } from "../ask.js";
import { Chart } from "../chart.js";
import { part, post, remove } from "../api.js";
import { at, go } from "../route.js";
import { standing } from "../standing.js";
import { compact, many, number, rate, share, span } from "../words.js";

const EVERY = 2000; // milliseconds
const SAMPLES = 300; // of one subscription's backlog, while it is looked at: ten minutes
const ROWS = 200; // that are drawn; the field above them finds the others
const RATES = { rates: true };
const BACK = { href: at("subscriptions"), title: "Subscriptions" };

export default function Subscriptions({ id }) {
  return id === null ? html`<${All} />` : html`<${One} id=${id} />`;
}

// ---------------------------------------------------------------- all

function All() {
  const { data, problem, refresh } = useData("/subscriptions", { query: RATES, every: EVERY });
  const [text, setText] = useState("");
  const trends = useTrends(data?.subscriptions);
  const rows = data && data.subscriptions.filter((its) => [its.id, its.agent ?? "", ...its.patterns].some((each) => each.includes(text.trim())));
  const empty = text
    ? html`<${Empty} title="No subscription fits" icon="search" />`
    : html`<${Empty} title="Nobody subscribes" icon="subscriptions">A subscription appears here once an agent makes one.</${Empty}>`;
  return html`
    <${Page} title="Subscriptions" lead="Who wants which events, and what waits for them." actions=${html`<${Button} icon="pause" onClick=${() => hold().then(refresh)}>Pause…</${Button}>`}>
      <${Failure} problem=${problem} retry=${refresh} />
      <${Pauses} />
      <div class="filters"><${Field} label="Find by id, agent or topic" value=${text} onChange=${setText} type="search" /></div>
      <${Card} tight><${Table} label="Subscriptions" rowKey=${(its) => its.id} rows=${rows?.slice(0, ROWS)} empty=${empty} rowClass=${(its) => (its.paused ? "held" : "")} columns=${columns(trends, refresh)} />
        ${rows?.length > ROWS && html`<p class="rest">${number(ROWS)} of ${number(rows.length)} are shown: find the others by a part of their name.</p>`}
      </${Card}>
    </${Page}>
  `;
}

const columns = (trends, refresh) => [
  { title: "Subscription", wide: true, show: (its) => html`<a href=${at("subscriptions", its.id)}>${its.agent ?? its.id}</a><small class="break">${its.patterns.join(", ")}</small>` },
  { title: "State", show: (its) => html`<${State} its=${its} />` },
  { title: "Waiting", number: true, show: (its) => html`${compact(its.ready)}<small>${trends.get(its.id) ?? ""}</small>` },
  { title: "Handled", number: true, show: (its) => html`<${Speed} its=${its} />` },
  { title: "Oldest", number: true, show: (its) => (its.oldest === null ? "–" : span(its.oldest)) },
  { title: "In hand", number: true, show: (its) => number(its.leased) },
  { title: "Later", number: true, show: (its) => number(its.delayed) },
  { title: "Dead", number: true, show: (its) => (its.dead > 0 ? html`<a class="bad" href=${at("letters", null, { subscription: its.id })}>${compact(its.dead)}</a>` : "0") },
  { title: "Actions", quiet: true, show: (its) => its.durable && html`<div class="actions"><${Toggle} its=${its} refresh=${refresh} /></div>` },
];

function State({ its }) {
  const { tone, word, why } = standing(its);
  return html`<${Badge} tone=${tone} title=${why}>${word}</${Badge}>`;
}

/** What its handlers do a second, in all processes together, and how much of that fails. */
function Speed({ its }) {
  if (its.delivered_per_second === null) return "–";
  return html`${rate(its.delivered_per_second)}/s${its.error_rate > 0 && html`<small class="bad">${share(its.error_rate)} fail</small>`}`;
}

/** Pause it, or let it go on: the one change that is undone as easily. */
function Toggle({ its, refresh, kind = "quiet" }) {
  const act = () => (its.paused ? goOn(its) : pause(its)).then(refresh);
  return html`<${Button} kind=${kind} icon=${its.paused ? "play" : "pause"} aria-label=${`${its.paused ? "Resume" : "Pause"} ${its.id}`} onClick=${act}>${its.paused ? "Resume" : "Pause"}</${Button}>`;
}

/** How fast the backlog of each grows or falls, from one look to the next. */
function useTrends(list) {
  const before = useRef({ at: 0, ready: new Map() });
  return useMemo(() => {
    if (!list) return new Map();
    const now = { at: performance.now(), ready: new Map(list.map((its) => [its.id, its.ready])) };
    const seconds = (now.at - before.current.at) / 1000;
    const trends = new Map(
      list.map((its) => {
        const was = before.current.ready.get(its.id);
        const each = was === undefined ? 0 : (its.ready - was) / seconds;
        return [its.id, Math.abs(each) < 0.05 ? "" : `${each > 0 ? "+" : "−"}${rate(Math.abs(each))}/s`];
      }),
    );
    before.current = now;
    return trends;
  }, [list]);
}

// ---------------------------------------------------------------- one

function One({ id }) {
  const { data: its, problem, refresh } = useData(`/subscriptions/${part(id)}`, { query: RATES, every: EVERY });
  const samples = useSamples(its);
  if (!its) return html`<${Page} title=${id} back=${BACK}>${problem ? html`<${Failure} problem=${problem} retry=${refresh} />` : html`<${Loading} />`}</${Page}>`;
  const said = standing(its);
  const actions = its.durable && html`
    <${Toggle} its=${its} refresh=${refresh} kind="" />
    <${Button} icon="broom" onClick=${() => purge(its).then(refresh)} disabled=${its.ready === 0}>Purge…</${Button}>
    <${Button} kind="danger" icon="trash" onClick=${() => forget(its).then((gone) => gone && go("subscriptions"))}>Remove…</${Button}>
  `;
  return html`
    <${Page} title=${its.id} back=${BACK} lead=${html`<span class="row"><${State} its=${its} />${said.why}</span>`} actions=${actions}>
      <${Failure} problem=${problem} />
      <${Stats}>
        <${Stat} label="Waiting" value=${compact(its.ready)} hint=${its.oldest === null ? null : `the oldest for ${span(its.oldest)}`} />
        <${Stat} label="Handled" value=${rate(its.delivered_per_second)} unit=${its.delivered_per_second === null ? null : "/s"} hint=${its.error_rate > 0 ? `${share(its.error_rate)} of what is tried fails` : null} tone=${its.error_rate > 0 ? "bad" : ""} />
        <${Stat} label="In hand" value=${number(its.leased)} />
        <${Stat} label="For later" value=${number(its.delayed)} />
        <${Stat} label="Dead letters" value=${its.dead > 0 ? html`<a href=${at("letters", null, { subscription: its.id })}>${compact(its.dead)}</a>` : "0"} tone=${its.dead > 0 ? "bad" : ""} />
        <${Stat} label="Processes" value=${number(its.consumers)} />
      </${Stats}>
      <div class="halves">
        <${Card} title="What waits" lead="Since this page was opened.">
          <${Chart} label="Events that wait" times=${samples.map((each) => each.at)} show=${compact} whole lines=${[
            { name: "Waiting", tone: "accent", values: samples.map((each) => each.ready) },
            { name: "In hand", tone: "good", values: samples.map((each) => each.leased) },
            { name: "For later", tone: "warn", values: samples.map((each) => each.delayed) },
          ]} />
        </${Card}>
        <${Card} title="Events a second" lead="In all processes together, over the last seconds.">
          <${Chart} label="Events a second" times=${samples.map((each) => each.at)} show=${rate} lines=${[
            { name: "Handled", tone: "good", values: samples.map((each) => each.delivered) },
            { name: "Failed", tone: "bad", values: samples.map((each) => each.failed) },
          ]} />
        </${Card}>
      </div>
      <${Card} title="What it wants"><${Wishes} its=${its} /></${Card}>
    </${Page}>
  `;
}

function Wishes({ its }) {
  const wish = its.filter ?? {};
  const several = (values) => values && values.join(", ");
  return html`<${Facts} facts=${[
    ["Topics", its.patterns.map((each) => html`<div key=${each}><a href=${at("events", null, { pattern: each })}>${each}</a></div>`)],
    ["Types", several(wish.types)],
    ["Priorities", several(wish.priorities)],
    ["Sources", several(wish.sources)],
    ["Agent", its.agent && html`<a href=${at("agents", its.agent)}>${its.agent}</a>`],
    ["Kept", its.durable ? "Events wait while nobody is there." : "No: it is there as long as its process."],
  ]} />`;
}

function useSamples(its) {
  const [samples, setSamples] = useState(/** @type {{at: number, ready: number, leased: number | null, delayed: number | null, delivered: number | null, failed: number | null}[]} */ ([]));
  useEffect(() => {
    if (its) setSamples((old) => [...old, { at: Date.now() / 1000, ready: its.ready, leased: its.leased, delayed: its.delayed, delivered: its.delivered_per_second, failed: its.failed_per_second }].slice(-SAMPLES));
  }, [its]);
  return samples;
}

// ---------------------------------------------------------------- pauses

const SCOPES = { subscription: "subscription", agent: "agent", topic: "topics", conversation: "conversation", everything: "everything" };

function Pauses() {
  const { data, refresh } = useData("/pauses", { every: EVERY });
  if (!data || data.pauses.length === 0) return null;
  const columns = [
    { title: "Paused", wide: true, show: (each) => (each.scope === "everything" ? "everything" : html`${SCOPES[each.scope]} <b>${each.name}</b>`) },
    { title: "Why", wide: true, show: (each) => each.reason || html`<span class="soft">no reason given</span>` },
    { title: "By", show: (each) => each.by || html`<span class="soft">–</span>` },
    { title: "Since", show: (each) => html`<${Time} at=${each.since} relative />` },
    { title: "Until", show: (each) => (each.until ? html`<${Time} at=${each.until} />` : "it is resumed") },
    { title: "Actions", quiet: true, show: (each) => html`<div class="actions"><${Button} kind="quiet" icon="play" aria-label=${`Resume ${each.name || "everything"}`} onClick=${() => lift(each).then(refresh)}>Resume</${Button}></div>` },
  ];
  return html`<${Card} title="Paused now" tight><${Table} label="Pauses" columns=${columns} rows=${data.pauses} rowKey=${(each) => `${each.scope} ${each.name}`} /></${Card}>`;
}

/** A pause as a request names it. */
function choice(scope, name) {
  if (scope === "everything") return { everything: true };
  return { [{ subscription: "name", agent: "agent", topic: "topic", conversation: "correlation_id" }[scope]]: name };
}

const HELD = {
  subscription: (name) => html`Nobody is given the events of <b>${name}</b>.`,
  agent: (name) => html`Agent <b>${name}</b> is given nothing, by none of its subscriptions.`,
  topic: (name) => html`Events on <b>${name}</b> are given to nobody.`,
  conversation: (name) => html`Events of the conversation <b>${name}</b> are given to nobody.`,
  everything: () => html`<b>Nobody</b> is given any event.`,
};

function hold() {
  return ask({
    title: "Pause",
    says: ({ scope, name }) => html`${HELD[scope](name.trim() || "…")} What is published waits; what is being handled is finished.`,
    verb: "Pause",
    fields: [
      { name: "scope", label: "What", type: "select", value: "agent", options: [["agent", "An agent"], ["subscription", "A subscription"], ["topic", "Topics"], ["conversation", "A conversation"], ["everything", "Everything"]] },
      { name: "name", label: "Which", value: "", required: true, mono: true, when: (values) => values.scope !== "everything" },
      { name: "minutes", label: "For how many minutes", type: "number", value: "", min: "0.1", step: "any", placeholder: "until it is resumed" },
      { name: "reason", label: "Why", value: "", maxlength: 500, hint: "Others see it." },
    ],
    run: ({ scope, name, minutes, reason }) => post("/pauses", { ...choice(scope, name.trim()), reason, ...(minutes ? { seconds: Number(minutes) * 60 } : {}) }),
    done: ({ pauses }) => `Paused: ${pauses.map((each) => each.name || "everything").join(", ")}.`,
  });
}

const lift = (each) =>
  ask({
    title: `Resume ${each.name || "everything"}?`,
    says: "What waits is given to whoever serves it. If something else is paused that holds it, too, it goes on waiting.",
    verb: "Resume",
    run: () => post("/pauses/resume", choice(each.scope, each.name)),
    done: () => "Resumed.",
  });

// ---------------------------------------------------------------- what is done to one

const pause = (its) =>
  ask({
    title: `Pause ${its.id}?`,
    says: "No process is given its events until it is resumed. They wait; what is being handled is finished.",
    verb: "Pause",
    run: () => post(`/subscriptions/${part(its.id)}/pause`),
    done: () => "Paused.",
  });

const goOn = (its) =>
  ask({
    title: `Resume ${its.id}?`,
    says: html`<b>${many(its.ready, "event")}</b> that wait are given to whoever serves it. A pause of its agent, or of everything, still holds them.`,
    verb: "Resume",
    run: () => post(`/subscriptions/${part(its.id)}/resume`),
    done: () => "Resumed.",
  });

const purge = (its) =>
  ask({
    title: `Purge ${its.id}?`,
    says: html`<b>${many(its.ready, "event")}</b> that wait are dropped for this subscription, and cannot be had back for it. What is in hand, for later or dead stays, and so does the log.`,
    verb: "Purge",
    danger: true,
    run: () => post(`/subscriptions/${part(its.id)}/purge`),
    done: ({ purged }) => `${many(purged, "event")} dropped.`,
  });

const forget = (its) =>
  ask({
    title: `Remove ${its.id}?`,
    says: html`It is forgotten, with <b>${many((its.ready ?? 0) + (its.leased ?? 0) + (its.delayed ?? 0), "event")}</b> that wait and <b>${many(its.dead, "dead letter")}</b>. An agent that comes again makes it anew, and begins with what is published then.`,
    verb: "Remove",
    danger: true,
    run: () => remove(`/subscriptions/${part(its.id)}`),
    done: () => "Removed.",
  });
