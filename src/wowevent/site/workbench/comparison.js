// Payloads side by side: which field those that failed lack, or have another kind of value in, and which differ.

import { Badge, Card, Field, Id, html, useState } from "../kit.js";
import { sideBySide } from "../json.js";
import { at } from "../route.js";

const BESIDE = 3; // dead letters
const FEW = 8; // fields up to which all are shown at first

/** A few of the letters, the newest first, and an event of the same topic that did not fail. */
export function Comparison({ letters, others }) {
  const shown = letters.slice(-BESIDE).reverse();
  const columns = [...shown, ...others.found];
  const rows = compared(columns, shown.length);
  const [only, setOnly] = useState(null);
  const narrow = only ?? (rows.length > FEW && columns.length > 1);
  const seen = narrow ? rows.filter((row) => row.differs) : rows;
  if (columns.length === 0) return null;
  return html`
    <${Card} tight title="The payloads, side by side" lead=${lead(shown.length, others)}
      actions=${rows.length > FEW && html`<${Field} type="checkbox" label="Only what differs" value=${narrow} onChange=${setOnly} />`}>
      <div class="matrix" tabindex="0" role="region" aria-label="The payloads, side by side">
        <table>
          <thead><tr><th scope="col">Field</th>${columns.map((each, index) => html`<${Head} key=${each.event.event_id} event=${each.event} failed=${index < shown.length} />`)}</tr></thead>
          <tbody>
            ${seen.map((row) => html`
              <tr key=${row.path} class=${row.telling ? "telling" : row.differs ? "differs" : ""}>
                <th scope="row"><code>${row.path || "(all of it)"}</code>${row.telling && html`<${Badge} tone="bad">${row.telling}</${Badge}>`}</th>
                ${row.values.map((value, index) => html`<td key=${index}>${value === "" ? html`<span class="none">not there</span>` : html`<code>${value}</code>`}</td>`)}
              </tr>`)}
          </tbody>
        </table>
        ${seen.length === 0 && html`<p class="note">They do not differ.</p>`}
      </div>
    </${Card}>
  `;
}

function Head({ event, failed }) {
  return html`<th scope="col">${failed ? html`<${Badge} tone="bad">failed</${Badge}>` : html`<${Badge} tone="good">did not fail</${Badge}>`} <${Id} id=${event.event_id} href=${at("events", event.event_id)} /></th>`;
}

/** The rows, what tells most first: what all that failed lack or have of another kind than all others, then what differs. */
export function compared(columns, failed) {
  const rows = sideBySide(columns.map((each) => each.event.payload)).map((row) => ({ ...row, telling: told(row.values, failed) }));
  return rows.sort((a, b) => weight(b) - weight(a));
}

/** What all that failed have in common, and none that did not; "" for nothing. */
function told(values, failed) {
  const [of, instead] = [values.slice(0, failed), values.slice(failed)].map((some) => new Set(some.map(kind)));
  if (of.size !== 1 || instead.size !== 1) return "";
  const [had, wanted] = [...of, ...instead];
  if (had === wanted || wanted === "") return "";
  return had === "" ? "missing" : `${had}, not ${wanted}`;
}

const KINDS = { '"': "text", "{": "object", "[": "list", t: "true or false", f: "true or false", n: "null" };

const kind = (written) => written && (KINDS[written[0]] ?? "number");

const weight = (row) => (row.telling ? 2 : row.differs ? 1 : 0);

function lead(failed, { found, problem, looking }) {
  const begun = failed > 1 ? `The newest ${failed} that failed` : "The one that failed";
  if (looking) return `${begun}; one that did not fail is looked for…`;
  if (problem) return `${begun}. Nothing to hold against: ${problem.message}`;
  return found.length ? `${begun}, and one on the same topic that is nobody's dead letter.` : `${begun}. None on the same topic was found that did not fail.`;
}
