// Conversations: who caused what, when, and what failed; and from where it is sent again.

import { Badge, Button, Card, Choice, Empty, Failure, Field, Icon, Id, Loading, Page, Stat, Stats, Table, Time, html, useData, useState } from "../kit.js";
import { part } from "../api.js";
import { at, go } from "../route.js";
import { many, number, span } from "../words.js";
import { again } from "../workbench/again.js";
import { headline } from "../workbench/diagnosis.js";
import { Storms } from "../workbench/storms.js";
import { useRecent } from "../workbench/recent.js";

const SHOWN = 300; // steps, until more are asked for
const DEEPEST = 12; // levels that are set in
const EVERY = 3000; // milliseconds after which what may go on is asked for again,
const SELDOM = 30_000; // and what has ended, as it seems, or is long: where there is no index, the log is looked through
const ENDED = 600; // seconds after its newest event
const LONG = 1000; // events

export default function Conversations({ id }) {
  return id === null ? html`<${Landing} />` : html`<${Conversation} id=${id} />`;
}

function Landing() {
  const [id, setId] = useState("");
  const { rows, problem, refresh } = useRecent();
  const look = (event) => {
    event.preventDefault();
    if (id.trim()) go("conversations", id.trim());
  };
  return html`
    <${Page} title="Conversations" lead="What a handler publishes belongs to the event that it handles. So all that came of one event is one conversation: a tree of causes.">
      <form class="lookup" onSubmit=${look}>
        <${Field} label="Id of any of its events, or its correlation id" value=${id} onChange=${setId} mono />
        <button type="submit" class="button primary">${Icon({ name: "search" })}Look</button>
      </form>
      <${Storms} />
      <${Failure} problem=${problem} retry=${refresh} />
      <${Card} tight title="Of late" lead="Those with the newest events." actions=${html`<${Button} kind="quiet" icon="replays" onClick=${refresh}>Look again</${Button}>`}>
        <${Table} label="Conversations of late" columns=${RECENT} rows=${problem ? [] : rows} rowKey=${(row) => row.id}
          empty=${html`<${Empty} title="Nothing was published of late">Conversations of the last day would stand here.</${Empty}>`} />
      </${Card}>
    </${Page}>
  `;
}

const RECENT = [
  { title: "Began with", wide: true, show: (row) => html`<a href=${at("conversations", row.id)}>${row.topic}</a>` },
  { title: "Published by", wide: true, show: (row) => row.agents.join(", ") },
  { title: "Events", number: true, show: (row) => number(row.count) },
  { title: "Took", number: true, show: (row) => (row.count > 1 ? span(row.to - row.from) : "–") },
  { title: "Newest", show: (row) => html`<${Time} at=${row.to} relative />` },
  { title: "Id", show: (row) => html`<${Id} id=${row.id} href=${at("conversations", row.id)} />` },
];

/** When to ask again for what is known of a conversation: one that is not there is not waited for. */
export function pace(found, now = Date.now() / 1000) {
  if (found === null) return 0;
  return now - found.ended < ENDED && found.steps.length < LONG ? EVERY : SELDOM;
}

function Conversation({ id }) {
  const { data, problem, loading, refresh } = useData(`/conversations/${part(id)}`, { every: pace });
  const actions = html`
    ${data?.failures > 0 && html`<a class="button" href=${at("letters", null, { correlation_id: data.id })}>${Icon({ name: "letters" })}Its dead letters</a>`}
    <${Button} icon="replays" busy=${loading} onClick=${refresh}>Look again</${Button}>
  `;
  return html`
    <${Page} title=${data?.steps[0]?.topic ?? "A conversation"} lead=${html`Conversation <span class="mono break">${data?.id ?? id}</span>`} back=${{ href: at("conversations"), title: "Conversations" }} actions=${actions}>
      <${Failure} problem=${problem} retry=${refresh} />
      ${!data && !problem && html`<${Loading} />`}
      ${data && html`<${Sum} found=${data} /><${Tree} found=${data} refresh=${refresh} />`}
    </${Page}>
  `;
}

function Sum({ found }) {
  const left = [
    found.orphans > 0 && `${many(found.orphans, "event")} name a cause that is not here, and stand under the first one`,
    found.replays > 0 && `${many(found.replays, "event is a replay", "events are replays")}`,
    found.unreadable > 0 && `${many(found.unreadable, "event")} could not be read`,
    found.more && "there is more than is shown: the last ones are left out",
  ].filter(Boolean);
  return html`
    <${Stats}>
      <${Stat} label="Events" value=${number(found.steps.length)} />
      <${Stat} label="Agents" value=${number(found.agents.length)} hint=${found.agents.join(", ")} />
      <${Stat} label="From first to last" value=${span(found.ended - found.started)} hint=${html`began <${Time} at=${found.started} />`} />
      <${Stat} label="Failures" value=${number(found.failures)} tone=${found.failures ? "bad" : "good"} />
    </${Stats}>
    ${left.length > 0 && html`<p class="note">${left.join("; ")}.</p>`}
  `;
}

function Tree({ found, refresh }) {
  const [which, setWhich] = useState("all");
  const [most, setMost] = useState(SHOWN);
  const all = found.steps.map((step, index) => ({ step, index }));
  const rows = which === "all" ? all : all.filter(({ step }) => step.failures.length > 0);
  return html`
    <${Card} tight title="Who caused what" lead="A bar is the time from the cause to its effect."
      actions=${found.failures > 0 && html`<${Choice} label="Which" options=${[["all", "All"], ["failed", "Failures"]]} value=${which} onChange=${setWhich} />`}>
      <ol class="tree" role="list" aria-label="Events, cause before effect">
        ${rows.slice(0, most).map(({ step, index }) => html`<${Step} key=${step.event_id} step=${step} index=${index} found=${found} refresh=${refresh} />`)}
      </ol>
      ${rows.length > most && html`<p class="note">${number(most)} of ${number(rows.length)} are shown. <${Button} kind="quiet" onClick=${() => setMost(most + SHOWN)}>Show more</${Button}></p>`}
    </${Card}>
  `;
}

function Step({ step, index, found, refresh }) {
  const failed = step.failures.length > 0;
  const depth = Math.min(step.depth, DEEPEST);
  return html`
    <li class=${failed ? "failed" : ""}>
      <div class="what" style=${{ paddingLeft: `${depth * 20}px` }}>
        ${step.depth > 0 && html`<span class="elbow" style=${{ left: `${(depth - 1) * 20 + 6}px` }} aria-hidden="true"></span>`}
        <p><a href=${at("events", step.event_id)}>${step.topic}</a> <span class="soft">${step.source_agent}${step.target_agent && ` → ${step.target_agent}`}</span></p>
        <p class="marks">
          ${step.after !== null && html`<span class="soft">after ${span(step.after)}</span>`}
          ${step.orphan && html`<${Badge} title="The event that it names as its cause is not here.">cause unknown</${Badge}>`}
          ${step.replay_of && html`<${Badge} tone="accent">replay</${Badge}>`}
          ${step.delayed_until && html`<${Badge}>was delayed</${Badge}>`}
        </p>
        ${step.failures.map((failure) => html`
          <p class="died" key=${failure.id}>${Icon({ name: "alert" })}<span>${failure.subscription}: <a href=${at("letters", failure.id)}>${headline(failure.error || failure.reason)}</a> after ${many(failure.attempts, "attempt")}</span></p>`)}
      </div>
      <${Line} step=${step} found=${found} failed=${failed} />
      <${Button} kind="quiet" icon="replays" onClick=${() => again(found.steps, index).then((done) => done !== undefined && refresh())}>
        <span>Again<span class="wide-only"> from here</span><span class="unseen">: ${step.topic}</span></span>
      </${Button}>
    </li>
  `;
}

/** The bar from the cause to its effect, which is a dot, on the time of the whole conversation. */
function Line({ step, found, failed }) {
  const whole = Math.max(found.ended - found.started, 0.001);
  const place = (time) => `${2 + 96 * Math.min(1, Math.max(0, (time - found.started) / whole))}%`;
  const told = `${span(Math.max(0, step.time - found.started))} after the beginning${failed ? ", failed" : ""}`;
  return html`
    <svg class="moment" role="img" aria-label=${told}>
      <title>${told}</title>
      <line class="ground" x1="2%" x2="98%" y1="50%" y2="50%" />
      ${step.after !== null && html`<line class="bar-of" x1=${place(step.time - step.after)} x2=${place(step.time)} y1="50%" y2="50%" />`}
      <circle cx=${place(step.time)} cy="50%" r="5" />
    </svg>
  `;
}
