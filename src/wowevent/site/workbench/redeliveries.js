// Redeliveries at a rate: how far each is, and how to end it.

import { Badge, Button, Card, Table, Time, html, useData } from "../kit.js";
import { ask } from "../ask.js";
import { part, remove } from "../api.js";
import { many } from "../words.js";
import { Progress } from "./progress.js";

const EVERY = 2_000; // milliseconds
const LATELY = 300; // seconds for which one that has ended is shown
const TONES = { running: "accent", done: "good", cancelled: "warn", failed: "bad" };

/** Those that are under way, and those that ended lately; nothing where there are none. */
export function Redeliveries() {
  const { data, refresh } = useData("/redeliveries", { every: EVERY });
  const rows = (data?.redeliveries ?? []).filter((each) => !each.ended_at || each.ended_at > Date.now() / 1000 - LATELY);
  if (rows.length === 0) return null;
  return html`
    <${Card} title="Redeliveries at a rate" lead=${data.complete ? "Of all processes; one ends with the process that has it." : "Of the process that answers this page: the others cannot be heard now."} tight>
      <${Table} label="Redeliveries at a rate" rows=${rows} rowKey=${(row) => row.id} columns=${columns(refresh)} />
    </${Card}>
  `;
}

const columns = (refresh) => [
  { title: "Begun", show: (row) => html`<${Time} at=${row.started_at} />` },
  { title: "State", show: (row) => html`<${Badge} tone=${TONES[row.state]}>${row.state}</${Badge}>${row.failure && html`<small class="bad">${row.failure.message}</small>`}` },
  { title: "A second", number: true, show: (row) => String(row.rate) },
  { title: "Redelivered", wide: true, show: (row) => html`<${Progress} label="Redelivered" done=${row.redelivered} of=${row.total} />` },
  { title: "Actions", quiet: true, show: (row) => row.state === "running" && html`<div class="actions"><${Button} kind="quiet" icon="close" onClick=${() => cancel(row).then(refresh)}>Cancel</${Button}></div>` },
];

const cancel = (row) =>
  ask({
    title: "Cancel this redelivery?",
    says: `${many(row.redelivered, "dead letter")} of ${row.total} went out already. The others stay dead letters.`,
    verb: "Cancel the redelivery",
    run: () => remove(`/redeliveries/${part(row.id)}`),
    done: () => "The redelivery is cancelled.",
  });
