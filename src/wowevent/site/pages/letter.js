// One dead letter: why it died, each attempt, and its payload to be corrected and sent again.

import { Button, Card, Empty, Facts, Failure, Icon, Id, Json, Loading, Page, Table, Time, html, useData, useState } from "../kit.js";
import { part } from "../api.js";
import { exact } from "../json.js";
import { at, go } from "../route.js";
import { many } from "../words.js";
import { Correction } from "../workbench/correction.js";
import { headline } from "../workbench/diagnosis.js";
import { discard, redeliver } from "../workbench/sending.js";
import { Why } from "../workbench/why.js";

export default function Letter({ id, query }) {
  const { data: letter, problem, refresh } = useData(`/dead-letters/${part(id)}`, { parse: exact });
  const [sent, setSent] = useState(null);
  const up = query.group ? { href: at("letters", null, { fingerprint: query.group }), title: "The group" } : { href: at("letters"), title: "Dead letters" };
  const act = async (what) => {
    if ((await what({ ids: [id] })) !== undefined) go("letters", null, { fingerprint: query.group });
  };
  if (!letter) {
    return html`<${Page} title="A dead letter" back=${up}><${Failure} problem=${problem} retry=${refresh} />${!problem && html`<${Loading} />`}</${Page}>`;
  }
  const lead = html`${letter.event.topic} for ${letter.subscription}, given up <${Time} at=${letter.time} relative /> after ${many(letter.attempts.length, "attempt")}`;
  const actions = !sent && html`
    <${Button} kind="danger" icon="trash" onClick=${() => act(discard)}>Discard</${Button}>
    <${Button} icon="send" onClick=${() => act(redeliver)}>Redeliver as it is</${Button}>
  `;
  return html`
    <${Page} title=${headline(letter.error)} lead=${lead} back=${up} actions=${actions}>
      ${sent ? html`<${Sent} sent=${sent} letter=${letter} up=${up} />` : html`<${Correction} letter=${letter} onSent=${setSent} />`}
      <${Why} error=${letter.error} reason=${letter.reason} traceback=${letter.traceback} failed=${[letter.event.payload]} others=${[]} />
      <div class="columns">
        <${Card} tight title="Attempts"><${Table} label="Attempts" columns=${ATTEMPTS} rows=${letter.attempts} rowKey=${(each) => String(each.number)} /></${Card}>
        <${About} letter=${letter} />
      </div>
      <${Card} title="The event"><${Json} value=${letter.event} label="The event" /></${Card}>
    </${Page}>
  `;
}

const ATTEMPTS = [
  { title: "Attempt", show: (each) => each.number },
  { title: "Ended", show: (each) => html`<${Time} at=${each.time} />` },
  { title: "Error", wide: true, show: (each) => each.error },
];

function About({ letter }) {
  const { event } = letter;
  return html`
    <${Card} title="About it">
      <${Facts} facts=${[
        ["Event", html`<${Id} id=${event.event_id} href=${at("events", event.event_id)} />`],
        ["Type", event.event_type],
        ["Published by", event.source_agent],
        ["Meant for", event.target_agent],
        ["Conversation", html`<a href=${at("conversations", event.event_id)}>who caused it, and what came of it</a>`],
        ["Dead letter", html`<${Id} id=${letter.id} />`],
      ]} />
    </${Card}>
  `;
}

/** What became of it. */
function Sent({ sent, letter, up }) {
  return html`
    <${Card}>
      <${Empty} title="The corrected event is on its way" icon="check">
        <p>It went to ${letter.subscription} as <a href=${at("events", sent.event_id)}>a new event</a>, and this dead letter is gone.</p>
        <p><a href=${up.href}>${Icon({ name: "back" })} Back to ${up.title.toLowerCase()}</a></p>
      </${Empty}>
    </${Card}>
  `;
}
