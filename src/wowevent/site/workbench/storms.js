// Conversations that went too far and are parked; nothing where there are none.

import { Button, Card, Failure, Id, Table, Time, html, useData } from "../kit.js";
import { ask } from "../ask.js";
import { part, post } from "../api.js";
import { at } from "../route.js";

export function Storms() {
  const { data, problem, refresh } = useData("/storms");
  if (problem && problem.status !== 403) return html`<${Failure} problem=${problem} retry=${refresh} />`;
  if (!data?.storms.length) return null;
  return html`
    <${Card} tight title="Parked" lead="Agents that answer each other without end. All that belongs to these conversations goes to the dead letters until they are released.">
      <${Table} label="Parked conversations" rows=${data.storms} rowKey=${(row) => row.id} columns=${columns(refresh)} />
    </${Card}>
  `;
}

const columns = (refresh) => [
  { title: "Conversation", show: (row) => html`<${Id} id=${row.correlation_id} href=${at("conversations", row.id)} />` },
  { title: "Why", wide: true, show: (row) => row.why },
  { title: "Since", show: (row) => html`<${Time} at=${row.since} relative />` },
  {
    title: "Actions",
    quiet: true,
    show: (row) => html`<div class="actions">
      <a class="button quiet" href=${at("letters", null, { correlation_id: row.correlation_id })}>Dead letters</a>
      <${Button} icon="play" onClick=${() => release(row).then(refresh)}>Release</${Button}>
    </div>`,
  },
];

const release = (row) =>
  ask({
    title: "Release this conversation?",
    says: html`<p><b>It may go on as far again</b>, until it is beyond ${row.limit} (${row.most}) once more. Stop what loops first.</p><p>What was buried of it stays with the dead letters until it is redelivered.</p>`,
    verb: "Release",
    run: () => post(`/storms/${part(row.id)}/release`),
    done: () => "The conversation is released.",
  });
