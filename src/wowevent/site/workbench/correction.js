// The payload of a dead letter, corrected: what was typed is read as it is typed, and held against the original.

import { Badge, Button, Card, Field, Json, html, useData, useMemo, useState } from "../kit.js";
import { ask } from "../ask.js";
import { part, post } from "../api.js";
import { changes, exact, keepsNumbers, written } from "../json.js";
import { many } from "../words.js";

const KINDS = { added: ["good", "new"], removed: ["bad", "taken out"], changed: ["warn", "changed"] };

/**
 * @param {object} its
 * @param {Record<string, any>} its.letter Read by `exact`.
 * @param {(sent: {event_id: string, replaces: string}) => void} its.onSent
 */
export function Correction({ letter, onSent }) {
  const original = letter.event.payload;
  const first = useMemo(() => written(original, 2), [letter]);
  const [text, setText] = useState(first);
  const { payload, wrong } = useMemo(() => read(text), [text]);
  const changed = useMemo(() => (wrong ? [] : changes(original, payload)), [payload, wrong]);
  const resend = async () => {
    const sent = await ask(question(letter, payload, changed));
    if (sent !== undefined) onSent(sent);
  };
  if (!keepsNumbers(original)) {
    return html`<${Card} title="Correct it"><p class="note warn">This browser would round a number of this payload. Use a newer one, or <code>wowevent dlq resend</code>.</p></${Card}>`;
  }
  return html`
    <${Card} title="Correct it" lead="Change the payload, look at what that changes, then send it again. It goes to ${letter.subscription} and to nobody else.">
      <div class="halves correction">
        <${Field} label="Payload" type="textarea" mono value=${text} onChange=${setText} error=${wrong} rows=${Math.min(24, Math.max(8, first.split("\n").length + 2))} />
        <div class="stack">
          <${Changes} changed=${changed} wrong=${wrong} />
          <${Schemas} type=${letter.event.event_type} />
        </div>
      </div>
      <div class="row below">
        <${Button} kind="primary" icon="send" disabled=${Boolean(wrong) || changed.length === 0} onClick=${resend}>Resend corrected</${Button}>
        <${Button} kind="quiet" disabled=${text === first} onClick=${() => setText(first)}>Put back the original</${Button}>
      </div>
    </${Card}>
  `;
}

/** What was typed, as a payload; else what is wrong with it. */
function read(text) {
  try {
    const payload = exact(text);
    const fits = payload !== null && typeof payload === "object" && !Array.isArray(payload);
    return fits ? { payload, wrong: "" } : { payload: null, wrong: "A payload is a JSON object: it begins with { and ends with }." };
  } catch (error) {
    return { payload: null, wrong: `This is no JSON: ${error.message}` };
  }
}

const question = (letter, payload, changed) => ({
  title: "Resend corrected?",
  wide: true,
  says: html`
    <div class="stack">
      <p><b>The corrected event goes to ${letter.subscription}</b>, and to nobody else, as a new event. This dead letter is gone then. Who sent it, and why, stands in the log.</p>
      <${Changes} changed=${changed} wrong="" />
    </div>
  `,
  fields: [{ name: "reason", label: "Why is it corrected?", required: true, maxlength: 500, placeholder: "such as: the shop forgot the sum" }],
  verb: "Resend",
  run: ({ reason }) => post(`/dead-letters/${part(letter.id)}/resend`, { payload, reason }),
  done: () => "The corrected event is sent.",
});

/** What was changed, a line for each field. */
function Changes({ changed, wrong }) {
  if (wrong) return html`<p class="note">Once it is right, what you changed stands here.</p>`;
  if (changed.length === 0) return html`<p class="note">Nothing is changed yet.</p>`;
  return html`
    <div role="status">
      <h3>${many(changed.length, "field")} changed</h3>
      <ul class="changes">
        ${changed.map(({ path, kind, before, after }) => html`
          <li key=${path}>
            <${Badge} tone=${KINDS[kind][0]}>${KINDS[kind][1]}</${Badge}>
            <code>${path}</code>
            <span>${before && html`<del>${before}</del>`} ${after && html`<ins>${after}</ins>`}</span>
          </li>`)}
      </ul>
    </div>
  `;
}

/** The schema that it will be held against, where its type has one. */
function Schemas({ type }) {
  const { data } = useData("/schemas", { query: { event_type: type } });
  const newest = data?.schemas.at(-1);
  if (!newest) return null;
  return html`<details><summary>Its schema: ${newest.event_type} ${newest.version}</summary><${Json} value=${newest.json_schema} label="Schema" /></details>`;
}
