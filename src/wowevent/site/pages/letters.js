// Dead letters: those that died of the same stand together. One group has a page of its own, and so has one letter.

import { Badge, Card, Empty, Failure, Field, Page, Table, Time, html, useData } from "../kit.js";
import { at, go } from "../route.js";
import { many, number } from "../words.js";
import { Group } from "../workbench/group.js";
import { lettersIn, usePaced } from "../workbench/paced.js";
import { Redeliveries } from "../workbench/redeliveries.js";
import { REASONS, headline } from "../workbench/diagnosis.js";

const MOST = 100; // groups

export default function Letters({ query }) {
  return query.fingerprint ? html`<${Group} key=${query.fingerprint} fingerprint=${query.fingerprint} />` : html`<${Groups} query=${query} />`;
}

function Groups({ query }) {
  const asked = { subscription: query.subscription, reason: query.reason, correlation_id: query.correlation_id, event_id: query.event_id };
  const { data, problem, refresh } = usePaced("/dead-letters/groups", { query: { ...asked, limit: MOST } }, lettersIn);
  const groups = data?.groups ?? null;
  return html`
    <${Page}
      title="Dead letters"
      lead="Events that a subscription gave up on. Those that died of the same error stand together: open a group to see why, correct what they died of, then send them again."
    >
      <${Filters} query=${query} />
      <${Failure} problem=${problem} retry=${refresh} />
      <${Card} tight title=${groups?.length > 0 && `${many(lettersIn(data), "dead letter")} in ${many(groups.length, "group")}`}>
        <${Table} label="Groups of dead letters" columns=${COLUMNS} rows=${groups} rowKey=${(group) => group.fingerprint} empty=${html`<${Nothing} query=${asked} />`} />
        ${data?.more && html`<p class="note">There are more: only a part of all dead letters is shown. Choose a subscription or a reason to see its own.</p>`}
      </${Card}>
      <${Redeliveries} />
    </${Page}>
  `;
}

const COLUMNS = [
  { title: "Error", wide: true, show: (group) => html`<a class="error" href=${at("letters", null, { fingerprint: group.fingerprint })}>${headline(group.error)}</a><${Badge} tone="bad">${REASONS[group.reason] ?? group.reason}</${Badge}>` },
  { title: "Could not be handled by", wide: true, show: (group) => group.subscriptions.map((id) => html`<div key=${id}>${id}</div>`) },
  { title: "Topic", wide: true, show: (group) => group.topics.map((topic) => html`<div key=${topic}>${topic}</div>`) },
  { title: "Letters", number: true, show: (group) => html`<b>${number(group.count)}</b>` },
  { title: "Newest", show: (group) => html`<${Time} at=${group.last} relative />` },
  { title: "Oldest", show: (group) => html`<${Time} at=${group.first} relative />` },
];

function Filters({ query }) {
  const { data } = useData("/subscriptions");
  const known = (data?.subscriptions ?? []).filter((each) => each.durable).map((each) => each.id);
  const chosen = query.subscription && !known.includes(query.subscription) ? [query.subscription] : [];
  const set = (name) => (value) => go("letters", null, { ...query, [name]: value }, { replace: true });
  const narrow = query.correlation_id ?? query.event_id;
  return html`
    <div class="filters">
      <${Field} label="Subscription or agent" type="select" value=${query.subscription ?? ""} options=${[["", "all"], ...chosen, ...known]} onChange=${set("subscription")} />
      <${Field} label="Reason" type="select" value=${query.reason ?? ""} options=${[["", "all"], ...Object.entries(REASONS)]} onChange=${set("reason")} />
    </div>
    ${narrow && html`<p class="note accent filters">Only those of ${narrow}. <a href=${at("letters")}>Show all</a></p>`}
  `;
}

function Nothing({ query }) {
  if (Object.values(query).some(Boolean)) return html`<${Empty} title="None of these"><a href=${at("letters")}>Show all dead letters</a></${Empty}>`;
  return html`<${Empty} title="No dead letters">What a handler fails on is tried again first. What fails every time comes here, and waits for you.</${Empty}>`;
}
