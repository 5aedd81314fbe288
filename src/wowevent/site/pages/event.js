// One event: what it says, who got it and when, and what it belongs to.

import { Badge, Button, Card, Empty, Failure, Facts, Id, Json, Loading, Page, Table, Time, html, useData } from "../kit.js";
import { ask } from "../ask.js";
import { part, post } from "../api.js";
import { publish } from "../publish.js";
import { at } from "../route.js";
import { many, span } from "../words.js";

const EVERY = 15_000; // ms: all processes are asked what they delivered, which is a fact in the log each time
const BACK = { href: at("events"), title: "Events" };
const TONES = { acked: "good", retried: "warn", dead: "bad", dropped: "bad" };
const WORDS = { acked: "handled", retried: "failed, tried again", dead: "dead", dropped: "failed, dropped" };

export default function One({ id }) {
  const { data, problem, refresh } = useData(`/events/${part(id)}`, { every: EVERY });
  if (!data) return html`<${Page} title="Event" back=${BACK}>${problem ? html`<${Failure} problem=${problem} retry=${refresh} />` : html`<${Loading} />`}</${Page}>`;
  const { event } = data;
  const actions = html`
    <a class="button" href=${at("conversations", event.correlation_id || id)}>Its conversation</a>
    <${Button} icon="edit" onClick=${() => publish({ topic: event.topic, type: event.event_type, payload: event.payload })}>Publish one like it</${Button}>
    <${Button} icon="replays" onClick=${() => again(event)}>Publish again</${Button}>
  `;
  const lead = html`<span class="row"><code class="break">${id}</code>${data.dead_letters.length > 0 && html`<${Badge} tone="bad">${many(data.dead_letters.length, "dead letter")}</${Badge}>`}</span>`;
  return html`
    <${Page} title=${event.topic} lead=${lead} back=${BACK} actions=${actions}>
      <${Failure} problem=${problem} />
      <div class="columns">
        <div class="stack">
          <${Card} title="Payload"><${Json} value=${event.payload} label="Payload" /></${Card}>
          <${Deliveries} its=${data} />
        </div>
        <div class="stack">
          <${Card} title="The event"><${About} its=${data} /></${Card}>
          <${Matched} its=${data} />
        </div>
      </div>
    </${Page}>
  `;
}

function About({ its }) {
  const { event } = its;
  const link = (id) => id && html`<${Id} id=${id} href=${at("events", id)} />`;
  return html`<${Facts} facts=${[
    ["Type", event.event_type],
    ["From", event.source_agent],
    ["For", event.target_agent],
    ["Priority", event.priority],
    ["Happened", html`<${Time} at=${event.timestamp} />`],
    ["Stored", html`<${Time} at=${its.stored_at} />`],
    ["Position", its.position ? html`<code>${its.position}</code>` : "no longer in the log"],
    ["Schema", its.schema && html`<a href=${at("schemas", event.event_type)}>version ${its.schema.version}</a>`],
    ["Correlation", event.correlation_id && html`<a class="break" href=${at("conversations", event.correlation_id)}>${event.correlation_id}</a>`],
    ["Caused by", link(event.parent_event_id)],
    ["Replay of", link(event.replay_of)],
    ["Not before", event.not_before && html`<${Time} at=${event.not_before} />`],
    ["Lives for", event.ttl_seconds && span(event.ttl_seconds)],
    ["Trace", event.traceparent && html`<code class="break">${event.traceparent}</code>`],
    ["Headers", Object.keys(event.headers).length > 0 && html`<${Json} value=${event.headers} label="Headers" />`],
  ].filter(([, value]) => value !== false)} />`;
}

function Deliveries({ its }) {
  const columns = [
    { title: "Subscription", wide: true, show: (row) => html`<a href=${at("subscriptions", row.subscription)}>${row.subscription}</a>${row.agent && html`<small>${row.agent}</small>`}` },
    { title: "Outcome", wide: true, show: (row) => html`<${Badge} tone=${TONES[row.outcome]}>${WORDS[row.outcome] ?? row.outcome}</${Badge}>${row.error && html`<small class="break">${row.error}</small>`}` },
    { title: "Attempt", number: true, show: (row) => row.attempt },
    { title: "Took", number: true, show: (row) => span(row.seconds) },
    { title: "When", number: true, show: (row) => html`<${Time} at=${row.at} />` },
  ];
  const empty = html`<${Empty} title="Nobody who is here had it" icon="agents">Processes remember their last deliveries; what one that ended knew is gone.</${Empty}>`;
  const key = (row) => `${row.subscription} ${row.process} ${row.attempt} ${row.at}`;
  return html`
    <${Card} title="Who got it" tight>
      <${Table} label="Deliveries" columns=${columns} rows=${its.deliveries} rowKey=${key} empty=${empty} />
      ${its.dead_letters.length > 0 && html`<p class="note warn"><span>It is a dead letter: <a href=${at("letters", null, { event_id: its.event.event_id })}>see why, and send it again</a></span></p>`}
    </${Card}>
  `;
}

function Matched({ its }) {
  const had = new Set(its.deliveries.map((each) => each.subscription));
  return html`
    <${Card} title="Subscriptions that match" lead="As they are declared now.">
      ${its.matched.length === 0
        ? html`<p class="soft">None does.</p>`
        : html`<ul class="plain">${its.matched.map((id) => html`<li key=${id}><a class="break" href=${at("subscriptions", id)}>${id}</a> ${!had.has(id) && html`<${Badge}>not seen to have it</${Badge}>`}</li>`)}</ul>`}
    </${Card}>
  `;
}

/** The same event as a new one, for all who match: by a replay of one. */
function again(event) {
  return ask({
    title: "Publish this event again?",
    says: html`A new event with the same payload goes to <b>every</b> subscription that matches the topic, those that handled the first one included. To reach only who failed, redeliver its dead letter.`,
    verb: "Publish again",
    fields: [{ name: "topic", label: "Topic", value: event.topic, required: true, mono: true, hint: "A topic of its own, such as sandbox.…, reaches only who listens there." }],
    run: ({ topic }) => post("/replays", { topic: topic.trim(), event_ids: [event.event_id] }),
    done: () => "It is published again.",
  });
}
