// Routers: the processes that WebSocket clients come to, and who is connected.

import { Badge, Card, Empty, Failure, Page, Stat, Stats, Table, Time, html, useData } from "../kit.js";
import { at } from "../route.js";
import { many, number } from "../words.js";

const EVERY = 3_000; // milliseconds
const FULL = 512 * 1024; // bytes of an outbox of which half are taken: the client does not keep up

export default function Routers() {
  const { data, problem, refresh } = useData("/routers", { every: EVERY });
  const routers = data?.routers ?? null;
  const sum = (name) => (routers ?? []).reduce((all, each) => all + each[name], 0);
  return html`
    <${Page} title="Routers" lead="Agents that speak WebSocket come to a router. Each process that has one says who is connected.">
      <${Failure} problem=${problem} retry=${refresh} />
      ${data?.complete === false && html`<p class="note warn">Other processes cannot be heard now: these are the routers of the one that answers this page.</p>`}
      ${routers?.length > 0 && html`<${Stats}>
        <${Stat} label="Routers" value=${number(routers.length)} />
        <${Stat} label="Clients" value=${number(sum("clients"))} />
        <${Stat} label="Named subscriptions" value=${number(sum("named"))} hint="served to them" />
        <${Stat} label="Events published by clients" value=${number(sum("events_processed"))} hint="since each router began" />
      </${Stats}>`}
      <${Card} tight title="Processes">
        <${Table} label="Routers" columns=${ROUTERS} rows=${routers} rowKey=${key}
          empty=${html`<${Empty} title="No router is heard of" icon="routers"><code>wowevent serve</code> has one. Who has just begun is heard within seconds.</${Empty}>`} />
      </${Card}>
      ${routers?.filter((each) => each.connections).map((each) => html`<${Clients} key=${key(each)} router=${each} />`)}
    </${Page}>
  `;
}

const key = (router) => `${router.process} ${router.since}`; // a process may have several

const ROUTERS = [
  { title: "Host", wide: true, show: (row) => row.host ?? "not shown to this token" },
  { title: "Process", wide: true, show: (row) => html`<span class="mono soft">${row.process}</span>` },
  { title: "Clients", number: true, show: (row) => number(row.clients) },
  { title: "Named subscriptions", number: true, show: (row) => number(row.named) },
  { title: "Published by clients", number: true, show: (row) => number(row.events_processed) },
  { title: "Since", show: (row) => html`<${Time} at=${row.since} relative />` },
];

/** Who is connected to the process that answers this page. */
function Clients({ router }) {
  return html`
    <${Card} tight title=${`${many(router.connections.length, "client")} on ${router.host ?? "this router"}`} lead="Of the process that answers this page; others say only how many they have.">
      <${Table} label="Clients" columns=${CLIENTS} rows=${router.connections} rowKey=${(row) => `${row.address} ${row.since} ${row.name}`}
        empty=${html`<${Empty} title="Nobody is connected" icon="routers" />`} />
    </${Card}>
  `;
}

const CLIENTS = [
  { title: "Client", wide: true, show: (row) => (row.name ? html`<a href=${at("agents")}>${row.name}</a>` : html`<span class="soft">without a name</span>`) },
  { title: "Address", wide: true, show: (row) => html`<span class="mono">${row.address}</span>` },
  { title: "Subscriptions", number: true, show: (row) => number(row.subscriptions) },
  { title: "Waiting to be sent", number: true, show: (row) => html`${bytes(row.outbox_bytes)} ${row.outbox_bytes > FULL && html`<${Badge} tone="warn">slow</${Badge}>`}` },
  { title: "Since", show: (row) => html`<${Time} at=${row.since} relative />` },
];

const bytes = (count) => (count < 1024 ? `${number(count)} B` : `${number(count / 1024)} KiB`);
