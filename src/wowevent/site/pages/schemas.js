// Schemas: what payloads are held against, each version of it, and whether a new one would break something.

import { Badge, Button, Card, Empty, Failure, Field, Json, Loading, Page, Table, html, useData, useState } from "../kit.js";
import { ask } from "../ask.js";
import { part, post, remove } from "../api.js";
import { at, go } from "../route.js";
import { many } from "../words.js";

const EVERY = 5_000; // milliseconds
const FIRST = JSON.stringify({ type: "object", properties: { n: { type: "integer" } }, required: ["n"] }, null, 2);

export default function Schemas({ id }) {
  return id === null ? html`<${Types} />` : html`<${Type} type=${id} />`;
}

function Types() {
  const { data, problem, refresh } = useData("/schemas", { every: EVERY });
  return html`
    <${Page} title="Schemas" lead="What the payload of an event type must look like. An event that does not fit the newest version, or the one it names, is refused.">
      <${Failure} problem=${problem} retry=${refresh} />
      <${Card} tight>
        <${Table} label="Event types with a schema" columns=${TYPES} rows=${data && byType(data.schemas)} rowKey=${(row) => row.type}
          empty=${html`<${Empty} title="No schemas" icon="schemas">Without one a payload may be any JSON object. The first can be registered below.</${Empty}>`} />
      </${Card}>
      <${Proposal} type="" first=${FIRST} refresh=${refresh} />
    </${Page}>
  `;
}

const TYPES = [
  { title: "Event type", wide: true, show: (row) => html`<a href=${at("schemas", row.type)}>${row.type}</a>` },
  { title: "Newest", show: (row) => row.newest.version },
  { title: "Versions", number: true, show: (row) => row.versions.length },
  { title: "Requires", wide: true, show: (row) => html`<span class="mono">${(row.newest.json_schema.required ?? []).join(", ") || "–"}</span>` },
  { title: "Description", wide: true, show: (row) => row.newest.description || "–" },
];

/** The versions of each type, which come from the oldest. */
function byType(schemas) {
  const found = new Map();
  for (const each of schemas) found.set(each.event_type, [...(found.get(each.event_type) ?? []), each]);
  return [...found].map(([type, versions]) => ({ type, versions, newest: versions.at(-1) }));
}

function Type({ type }) {
  const { data, problem, refresh } = useData("/schemas", { query: { event_type: type }, every: EVERY });
  const [chosen, setChosen] = useState(null);
  const versions = data?.schemas ?? [];
  const shown = versions.find((each) => each.version === chosen) ?? versions.at(-1);
  const drop = () => removal(shown).then((done) => done !== undefined && (setChosen(null), refresh()));
  return html`
    <${Page} title=${type} lead=${data && many(versions.length, "version")} back=${{ href: at("schemas"), title: "Schemas" }}>
      <${Failure} problem=${problem} retry=${refresh} />
      ${!data && !problem && html`<${Loading} />`}
      ${data && !shown && html`<${Card}><${Empty} title="There is no schema of this type" icon="schemas" /></${Card}>`}
      ${shown && html`
        <${Card} title=${`Version ${shown.version}`} lead=${shown.description}
          actions=${html`
            ${versions.length > 1 && html`<${Field} label="Shown version" hidden type="select" options=${versions.map((each) => each.version)} value=${shown.version} onChange=${setChosen} />`}
            <${Button} kind="danger" icon="trash" onClick=${drop}>Remove ${shown.version}</${Button}>`}>
          <${Json} value=${shown.json_schema} label=${`Schema ${type} ${shown.version}`} />
        </${Card}>`}
      ${data && html`<${Proposal} key=${shown?.version} type=${type} first=${shown ? JSON.stringify(shown.json_schema, null, 2) : FIRST} refresh=${refresh} />`}
    </${Page}>
  `;
}

const removal = (schema) =>
  ask({
    title: `Remove ${schema.event_type} ${schema.version}?`,
    says: "Events are no longer held against it, in any process. If it is the newest, they are held against the one before; without one, anything passes.",
    verb: "Remove",
    danger: true,
    run: () => remove(`/schemas/${part(schema.event_type)}/${part(schema.version)}`),
    done: () => "The schema is removed.",
  });

/** A schema that could be: checked against its neighbours, then registered. */
function Proposal({ type, first, refresh }) {
  const [name, setName] = useState(type);
  const [version, setVersion] = useState("");
  const [text, setText] = useState(first);
  const [report, setReport] = useState(null);
  const { schema, wrong } = read(text);
  const order = { event_type: name.trim(), version: version.trim(), json_schema: schema };
  const ready = !wrong && order.event_type && order.version;
  const changed = (set) => (value) => (set(value), setReport(null));
  const check = async (event) => {
    event.preventDefault();
    setReport(await post("/schemas/check", order).catch((problem) => ({ problem })));
  };
  const register = async () => {
    const done = await ask(registration(order));
    if (done === undefined) return;
    refresh();
    go("schemas", order.event_type);
  };
  return html`
    <${Card} title=${type ? "Another version" : "Register a schema"} lead="Look first what it would break: what the version before accepts and this one refuses.">
      <form class="stack" onSubmit=${check}>
        <div class="halves">
          <${Field} label="Event type" value=${name} onChange=${changed(setName)} mono required placeholder="order.placed" readonly=${Boolean(type)} />
          <${Field} label="Version" value=${version} onChange=${changed(setVersion)} mono required placeholder="1.1.0" />
        </div>
        <${Field} label="JSON Schema" type="textarea" mono rows="12" value=${text} onChange=${changed(setText)} error=${wrong} />
        ${report && html`<${Report} report=${report} />`}
        <div class="row">
          <button type="submit" class="button" disabled=${!ready}>Check</button>
          <${Button} kind="primary" disabled=${!ready} onClick=${register}>Register</${Button}>
        </div>
      </form>
    </${Card}>
  `;
}

const registration = (order) => ({
  title: `Register ${order.event_type} ${order.version}?`,
  says: async () => {
    const report = await post("/schemas/check", order);
    return html`<p><b>From now on events of this type are held against it</b>, if it is the newest version, in every process within a second or so. What does not fit is refused.</p><${Report} report=${report} />`;
  },
  verb: "Register",
  run: () => post("/schemas", order),
  done: () => "The schema is registered.",
});

/** What it would break. */
function Report({ report }) {
  if (report.problem) return html`<${Failure} problem=${report.problem} />`;
  if (report.compatible) return html`<p class="note good" role="status">It accepts all that its neighbours accept.</p>`;
  return html`
    <div role="status" class="stack">
      <p class="note warn">${many(report.breaks.length, "break")}: events that fit the version before it may be refused.</p>
      <ul class="changes">
        ${report.breaks.map((each, index) => html`<li key=${index}><${Badge} tone=${each.certain ? "bad" : "warn"}>${each.certain ? each.what : `${each.what}?`}</${Badge}><code>${each.path}</code><span><del>${each.old}</del> <ins>${each.new}</ins></span></li>`)}
      </ul>
    </div>
  `;
}

function read(text) {
  try {
    const schema = JSON.parse(text);
    const fits = schema !== null && typeof schema === "object" && !Array.isArray(schema);
    return { schema, wrong: fits ? "" : "A schema is a JSON object." };
  } catch (error) {
    return { schema: null, wrong: `This is no JSON: ${error.message}` };
  }
}
