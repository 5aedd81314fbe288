// Agents: who is there, what each hears and says, and its pause; and what is fired by schedule.

import { Badge, Button, Card, Choice, Empty, Failure, Page, Table, Time, html, useData, useState } from "../kit.js";
import { ask } from "../ask.js";
import { part, post, remove } from "../api.js";
import { at } from "../route.js";
import { many, number, span } from "../words.js";

const EVERY = 3_000; // milliseconds
const SLOWLY = 10_000; // for schedules
const TONES = { online: "good", suspect: "warn", offline: "" };
const ENDS = [["", "until it is resumed"], ["600", "for 10 minutes"], ["3600", "for an hour"], ["86400", "for a day"]];

export default function Agents() {
  const { data, problem, refresh } = useData("/agents", { every: EVERY });
  const pauses = useData("/pauses", { every: EVERY });
  const [which, setWhich] = useState("all");
  const held = new Map((pauses.data?.pauses ?? []).filter((each) => each.scope === "agent").map((each) => [each.name, each]));
  const rows = data && data.agents.filter((each) => which === "all" || each.state === "online").map((each) => ({ ...each, held: held.get(each.name) }));
  return html`
    <${Page} title="Agents" lead="Who is there, what each hears and publishes, and where its events wait."
      actions=${html`<${Choice} label="Which" options=${[["all", "All"], ["online", "Online"]]} value=${which} onChange=${setWhich} />`}>
      <${Failure} problem=${problem ?? pauses.problem} retry=${refresh} />
      <${Card} tight>
        <${Table} label="Agents" columns=${columns(pauses.refresh)} rows=${rows} rowKey=${(row) => row.name} rowClass=${(row) => (row.held ? "held" : "")}
          empty=${html`<${Empty} title="Nobody is here" icon="agents">An agent is a name: of a bus, of a subscription, of who publishes.</${Empty}>`} />
      </${Card}>
      <${Schedules} />
    </${Page}>
  `;
}

const columns = (refresh) => [
  { title: "Agent", wide: true, show: (row) => row.name },
  { title: "State", show: (row) => html`<${Badge} tone=${TONES[row.state]}>${row.state}</${Badge}> ${row.held && html`<${Held} pause=${row.held} />`}` },
  { title: "Last seen", show: (row) => html`<${Time} at=${row.last_seen} relative />` },
  { title: "Where", wide: true, show: (row) => (row.processes.length === 0 ? "–" : row.processes.map((each) => html`<div key=${each.id} class=${each.state === "online" ? "" : "soft"}>${each.host} <span class="soft">(${each.pid})</span></div>`)) },
  { title: "Hears", wide: true, show: (row) => (row.subscriptions.length ? row.subscriptions.map((each) => html`<${Heard} key=${each.id} of=${each} />`) : "–") },
  { title: "Publishes", wide: true, show: (row) => (row.publishes.length ? row.publishes.map((topic) => html`<div key=${topic}>${topic}</div>`) : "–") },
  { title: "Actions", quiet: true, show: (row) => html`<div class="actions">${row.held ? html`<${Button} icon="play" onClick=${() => resume(row).then(refresh)}>Resume</${Button}>` : html`<${Button} kind="quiet" icon="pause" onClick=${() => pause(row).then(refresh)}>Pause</${Button}>`}</div>` },
];

const Held = ({ pause }) => html`<${Badge} tone="warn" title=${[pause.reason, pause.by && `by ${pause.by}`].filter(Boolean).join(", ")}>paused</${Badge}>
  ${pause.until && html`<small>until <${Time} at=${pause.until} /></small>`}${pause.reason && html`<small>${pause.reason}</small>`}`;

/** One subscription: its patterns, and what waits or died. */
function Heard({ of: each }) {
  const waits = each.ready + (each.delayed ?? 0);
  const patterns = each.patterns.join(", ");
  const said = [
    !each.durable && "live",
    waits > 0 && `${number(waits)} waiting`,
    each.durable && each.consumers === 0 && html`<span class="warn">nobody serves it</span>`,
    each.dead > 0 && html`<a class="bad" href=${at("letters", null, { subscription: each.id })}>${many(each.dead, "dead letter")}</a>`,
  ].filter(Boolean);
  return html`<div>
    ${each.durable ? html`<a href=${at("subscriptions", each.id)}>${patterns}</a>` : patterns}
    ${said.length > 0 && html`<small>${said.flatMap((part, index) => (index ? [", ", part] : [part]))}</small>`}
  </div>`;
}

const pause = (row) =>
  ask({
    title: `Pause ${row.name}?`,
    says: html`<p><b>Nothing is handed to ${row.name}</b>, in any process, within a second: none of its ${many(row.subscriptions.length, "subscription")}, and none that it makes later. What it has in hand is finished; the rest waits, and nothing is lost.</p>`,
    fields: [
      { name: "seconds", label: "How long", type: "select", options: ENDS, value: "" },
      { name: "reason", label: "Why", maxlength: 500, placeholder: "who looks at this page later reads it" },
    ],
    verb: "Pause",
    run: ({ seconds, reason }) => post("/pauses", { agent: row.name, reason, ...(seconds ? { seconds: Number(seconds) } : {}) }),
    done: () => `${row.name} is paused.`,
  });

const resume = (row) =>
  ask({
    title: `Resume ${row.name}?`,
    says: `What waited for ${row.name} is handed out again, at once.`,
    verb: "Resume",
    run: () => post("/pauses/resume", { agent: row.name }),
    done: () => `${row.name} goes on.`,
  });

/** What is fired at its moments, whoever is there. */
function Schedules() {
  const { data, problem, refresh } = useData("/schedules", { every: SLOWLY });
  return html`
    <${Failure} problem=${problem} retry=${refresh} />
    <${Card} tight title="Schedules" lead="Events that are fired at their moments, each once, however many processes there are.">
      <${Table} label="Schedules" rows=${data && data.schedules} rowKey=${(row) => row.name} columns=${schedules(refresh)}
        empty=${html`<${Empty} title="No schedules" icon="replays">An agent, or <code>wowevent schedule add</code>, makes one.</${Empty}>`} />
    </${Card}>
  `;
}

const schedules = (refresh) => [
  { title: "Schedule", wide: true, show: (row) => row.name },
  { title: "Fires", wide: true, show: (row) => html`<span class="mono">${row.event.topic}</span>` },
  { title: "When", show: (row) => (row.cron ? html`<span class="mono">${row.cron}</span><small>${row.tz}</small>` : `every ${span(row.every)}`) },
  { title: "Next", show: (row) => (row.next ? html`<${Time} at=${row.next} relative />` : html`<span class="soft">never again</span>`) },
  { title: "Last", show: (row) => html`<${Time} at=${row.last} relative />` },
  { title: "Actions", quiet: true, show: (row) => html`<div class="actions"><${Button} kind="quiet" icon="trash" onClick=${() => drop(row).then(refresh)}>Remove</${Button}></div>` },
];

const drop = (row) =>
  ask({
    title: `Remove the schedule ${row.name}?`,
    says: `${row.event.topic} is not fired by it any more. What it had planned is cancelled; what it fired stays.`,
    verb: "Remove",
    danger: true,
    run: () => remove(`/schedules/${part(row.name)}`),
    done: () => "The schedule is removed.",
  });
