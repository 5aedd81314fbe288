// One group of dead letters: why they died, what of their payloads it is about, and how they are sent again.

import { Button, Card, Empty, Failure, Field, Id, Loading, Page, Table, Time, html, useEffect, useState } from "../kit.js";
import { exact, written } from "../json.js";
import { at } from "../route.js";
import { many, span } from "../words.js";
import { Comparison } from "./comparison.js";
import { headline } from "./diagnosis.js";
import { lettersIn, usePaced } from "./paced.js";
import { discard, redeliver } from "./sending.js";
import { Redeliveries } from "./redeliveries.js";
import { useOthers } from "./others.js";
import { Why } from "./why.js";

const SHOWN = 100; // letters
const BRIEF = 140; // characters of a payload

export function Group({ fingerprint }) {
  const groups = usePaced("/dead-letters/groups", { query: { fingerprint, limit: 1 } }, lettersIn);
  const listed = usePaced("/dead-letters", { query: { fingerprint, limit: SHOWN }, parse: exact }, () => groups.data?.groups[0]?.count ?? 0);
  useEffect(() => scrollTo(0, 0), []);
  const group = groups.data?.groups[0];
  const letters = listed.data?.dead_letters ?? null;
  const refresh = () => (groups.refresh(), listed.refresh());
  const others = useOthers(group, letters);
  const title = group ? headline(group.error) : "A group of dead letters";
  const lead = group && html`${many(group.count, "dead letter")} of ${group.subscriptions.join(", ")}, the newest <${Time} at=${group.last} relative />`;
  return html`
    <${Page} title=${title} lead=${lead} back=${{ href: at("letters"), title: "Dead letters" }}>
      <${Failure} problem=${groups.problem ?? listed.problem} retry=${refresh} />
      ${!groups.data && !groups.problem && html`<${Loading} />`}
      ${groups.data && !group && html`<${Gone} />`}
      ${group && html`
        <${Why} error=${group.error} reason=${group.reason} traceback=${group.traceback} failed=${(letters ?? []).map(payloadOf)} others=${others.found.map(payloadOf)} />
        <${Comparison} letters=${letters ?? []} others=${others} />
        <${Letters} group=${group} letters=${letters} refresh=${refresh} />
      `}
      <${Redeliveries} />
    </${Page}>
  `;
}

const payloadOf = (each) => each.event.payload;

function Gone() {
  return html`
    <${Card}>
      <${Empty} title="Nothing is left of this group" icon="check">
        <p>All of them were sent again or discarded. What fails again comes back to <a href=${at("letters")}>the dead letters</a>.</p>
      </${Empty}>
    </${Card}>
  `;
}

function Letters({ group, letters, refresh }) {
  const [ticked, setTicked] = useState(() => new Set());
  const there = (letters ?? []).map((letter) => letter.id);
  const chosen = there.filter((id) => ticked.has(id));
  const all = there.length > 0 && chosen.length === there.length;
  const tick = (id, on) => setTicked((old) => new Set([...old].filter((each) => each !== id).concat(on ? [id] : [])));
  const meant = chosen.length ? { ids: chosen } : { fingerprint: group.fingerprint };
  const which = chosen.length ? `${chosen.length} ticked` : group.count === 1 ? "it" : `all ${group.count}`;
  const act = async (what) => {
    if ((await what(meant)) === undefined) return;
    setTicked(new Set());
    refresh();
  };
  const actions = html`
    <${Button} kind="danger" icon="trash" onClick=${() => act(discard)}>Discard ${which}</${Button}>
    <${Button} kind="primary" icon="send" onClick=${() => act(redeliver)}>Redeliver ${which}</${Button}>
  `;
  return html`
    <${Card} tight title="Send them again" actions=${actions}
      lead="If the agent was at fault: mend it, then redeliver. If a payload was at fault: correct that one and resend it.">
      ${letters?.length > 1 && html`<div class="above"><${Field} type="checkbox" label=${`Tick all ${letters.length} that are shown`} value=${all} onChange=${(on) => setTicked(new Set(on ? there : []))} /></div>`}
      <${Table} label="Dead letters" columns=${columns(group, ticked, tick)} rows=${letters} rowKey=${(letter) => letter.id} rowClass=${(letter) => (ticked.has(letter.id) ? "ticked" : "")} />
      ${group.count > SHOWN && html`<p class="note">The oldest ${SHOWN} are shown. Without ticks, a button is for all ${group.count}.</p>`}
    </${Card}>
  `;
}

const columns = (group, ticked, tick) => [
  {
    title: "Event",
    show: (letter) => html`<div class="tick">
      <input type="checkbox" aria-label=${`Tick event ${letter.event.event_id}`} checked=${ticked.has(letter.id)} onChange=${(event) => tick(letter.id, event.target.checked)} />
      <div><${Id} id=${letter.event.event_id} href=${at("events", letter.event.event_id)} /><small>${letter.event.topic}</small></div>
    </div>`,
  },
  { title: "Died", show: (letter) => html`<${Time} at=${letter.time} /><small>${attempts(letter)}</small>` },
  { title: "Payload", wide: true, show: (letter) => html`<code class="break">${brief(written(letter.event.payload))}</code>` },
  {
    title: "Actions",
    quiet: true,
    show: (letter) => html`<div class="actions">
      <a class="button quiet" href=${at("conversations", letter.event.event_id)}>Conversation</a>
      <a class="button" href=${at("letters", letter.id, { group: group.fingerprint })}>Look and correct</a>
    </div>`,
  },
];

function attempts({ attempts: made }) {
  const took = made.length > 1 ? made.at(-1).time - made[0].time : 0;
  return took > 0 ? `${many(made.length, "attempt")} in ${span(took)}` : many(made.length, "attempt");
}

const brief = (text) => (text.length > BRIEF ? `${text.slice(0, BRIEF)}…` : text);
