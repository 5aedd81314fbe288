// Overview: how the whole system does, and what somebody should look at.

import { Badge, Card, Empty, Failure, Icon, Page, Stat, Stats, Table, Time, html, useData } from "../kit.js";
import { Chart } from "../chart.js";
import { at } from "../route.js";
import { standing } from "../standing.js";
import { compact, many, number, rate, span } from "../words.js";

const EVERY = 2000; // milliseconds: the service has a sample so often
const SELDOM = 10_000; // for what changes slowly
const GROUPS = 6; // kinds of failures that are named here
const TOPICS = 8;
const NOTICES = 12;

export default function Overview() {
  const { data, problem, refresh } = useData("/overview", { every: EVERY });
  return html`
    <${Page} title="Overview" lead=${data && html`<${Engine} its=${data} />`}>
      <${Failure} problem=${problem} retry=${refresh} />
      ${data && html`<${Numbers} its=${data} />`}
      ${data && html`<${Charts} series=${data.series} />`}
      <div class="columns lower">
        <${Attention} />
        <${Busy} />
      </div>
    </${Page}>
  `;
}

function Engine({ its }) {
  const well = its.health === "healthy";
  return html`<span class="row">
    <${Badge} tone=${well ? "good" : "bad"}>${its.health}</${Badge}>
    <span><b>${its.engine}</b>${its.url && html` at <code class="break">${its.url}</code>`}</span>
    <span>${many(its.processes, "process", "processes")}</span>
    ${its.since && html`<span>numbers since <${Time} at=${its.since} /></span>`}
  </span>`;
}

function Numbers({ its }) {
  const waiting = its.ready === null || its.delayed === null ? null : its.ready + its.delayed;
  return html`
    <${Stats}>
      <${Stat} label="Published" value=${rate(its.published_per_second)} unit="/s" />
      <${Stat} label="Delivered" value=${rate(its.delivered_per_second)} unit="/s" />
      <${Stat} label="Failed" value=${rate(its.failed_per_second)} unit="/s" tone=${its.failed_per_second > 0 ? "bad" : ""} />
      <${Stat} label="Handling, p95" value=${span(its.latency.p95)} hint=${`p50 ${span(its.latency.p50)}, p99 ${span(its.latency.p99)}`} />
      <${Stat} label="Waiting" value=${compact(waiting)} hint=${its.delayed ? `${compact(its.delayed)} of them for later` : null} />
      <${Stat} label="In hand" value=${compact(its.leased)} />
      <${Stat} label="Dead letters" value=${html`<a href=${at("letters")}>${compact(its.dead)}</a>`} tone=${its.dead > 0 ? "bad" : ""} />
      <${Stat} label="Subscriptions" value=${html`<a href=${at("subscriptions")}>${compact(its.subscriptions)}</a>`} />
    </${Stats}>
  `;
}

function Charts({ series }) {
  const times = series.map((each) => each.at);
  const of = (name) => series.map((each) => each[name]);
  return html`
    <div class="halves">
      <${Card} title="Events a second">
        <${Chart} label="Events a second over the last ten minutes" times=${times} show=${rate} lines=${[
          { name: "Published", tone: "accent", values: of("published") },
          { name: "Delivered", tone: "good", values: of("delivered") },
          { name: "Failed", tone: "bad", values: of("failed") },
        ]} />
      </${Card}>
      <${Card} title="How long handling takes">
        <${Chart} label="Time that 95 of 100 calls of handlers stay below, over the last ten minutes" times=${times} show=${span} lines=${[{ name: "95 of 100 take less than", tone: "accent", values: of("p95") }]} />
      </${Card}>
    </div>
  `;
}

/** What somebody should look at, the worst first, each with the page that helps. */
function Attention() {
  const groups = useData("/dead-letters/groups", { query: { limit: GROUPS }, every: SELDOM });
  const subscriptions = useData("/subscriptions", { every: SELDOM });
  const storms = useData("/storms", { every: SELDOM });
  const found = [...failing(groups.data), ...stopped(subscriptions.data), ...parked(storms.data)];
  const asked = [groups, subscriptions, storms];
  const known = asked.every((each) => each.data || each.problem);
  const refused = asked.find((each) => each.problem && each.problem.code !== "not_permitted");
  return html`
    <${Card} title="Needs attention" tight=${found.length > 0}>
      <${Failure} problem=${refused?.problem} retry=${refused?.refresh} />
      ${known && found.length === 0 && !refused && html`<${Empty} title="Nothing does">No failures, and everything is served.</${Empty}>`}
      <ul class="notices">${found.slice(0, NOTICES).map((each) => html`<${Notice} key=${each.key} ...${each} />`)}</ul>
      ${found.length > NOTICES && html`<p class="rest"><a href=${at("subscriptions")}>and ${many(found.length - NOTICES, "more", "more")}</a></p>`}
    </${Card}>
  `;
}

function Notice({ tone, what, why, href }) {
  return html`<li><a href=${href} class=${tone}>${Icon({ name: "alert" })}<span><b>${what}</b><small>${why}</small></span>${Icon({ name: "next" })}</a></li>`;
}

const failing = (data) =>
  (data?.groups ?? []).map((group) => ({
    key: `letters ${group.fingerprint} ${group.subscriptions.join(" ")}`,
    tone: "bad",
    what: group.error || group.reason,
    why: html`${many(group.count, "dead letter")} of ${group.subscriptions.join(", ")}, the last <${Time} at=${group.last} relative />`,
    href: at("letters", null, { fingerprint: group.fingerprint }),
  }));

const stopped = (data) =>
  (data?.subscriptions ?? [])
    .map((its) => ({ its, said: standing(its) }))
    .filter(({ said }) => said.look)
    .map(({ its, said }) => ({ key: `subscription ${its.id}`, tone: said.tone, what: `${its.id}: ${said.word}`, why: said.why, href: at("subscriptions", its.id) }));

const parked = (data) =>
  (data?.storms ?? []).map((storm) => ({ key: `storm ${storm.id}`, tone: "warn", what: "A conversation went too far", why: storm.why, href: at("conversations", storm.correlation_id) }));

function Busy() {
  const { data, problem, refresh } = useData("/topics", { every: SELDOM });
  if (problem?.code === "not_permitted") return null;
  const rows = data && [...data.topics].sort((one, other) => other.count - one.count).slice(0, TOPICS);
  const columns = [
    { title: "Topic", wide: true, show: (row) => html`<a href=${at("events", null, { pattern: row.topic })}>${row.topic}</a>` },
    { title: "Events", number: true, show: (row) => number(row.count) },
    { title: "Last", number: true, show: (row) => html`<${Time} at=${row.last_stored_at} relative />` },
  ];
  const empty = html`<${Empty} title="Nothing was published yet" icon="events"><a href=${at("events")}>Publish an event</a></${Empty}>`;
  return html`
    <${Card} title="Busiest topics" lead="Of the last events of the log." tight>
      <${Failure} problem=${problem} retry=${refresh} />
      <${Table} label="Busiest topics" columns=${columns} rows=${problem && !data ? [] : rows} rowKey=${(row) => row.topic} empty=${problem ? html`<span></span>` : empty} />
    </${Card}>
  `;
}
