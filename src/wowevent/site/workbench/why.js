// Why something died: its error in words, the line where it broke, what of the payload that is about, the whole traceback.

import { Badge, Card, Copy, html } from "../kit.js";
import { written } from "../json.js";
import { REASONS, clues, meaning, place } from "./diagnosis.js";

/**
 * @param {object} its
 * @param {string} its.error As the letter has it,
 * @param {string} its.reason its class,
 * @param {string} its.traceback and where that was raised; empty where nothing was.
 * @param {unknown[]} its.failed Payloads that failed so,
 * @param {unknown[]} its.others and of the same topic that did not.
 */
export function Why({ error, reason, traceback, failed, others }) {
  const broke = place(traceback);
  return html`
    <${Card} title="Why" actions=${html`<${Badge} tone="bad">${REASONS[reason] ?? reason}</${Badge}>`}>
      <div class="stack">
        <p>${meaning(reason)}</p>
        ${broke && html`<p class="broke">It broke in <code>${broke.name}</code>, line ${broke.line} of <code>${broke.file}</code>${broke.code && html`: <code class="code">${broke.code}</code>`}</p>`}
        ${clues(error, failed, others).map((clue) => html`<${Clue} key=${clue.field} ...${clue} />`)}
        ${traceback && html`<${Traceback} text=${traceback} />`}
      </div>
    </${Card}>
  `;
}

/** Of one word that the error quotes: which payloads have a field of that name. */
function Clue({ field, have, of, example }) {
  if (have === of) return html`<p class="note">The error names <code>${field}</code>. It is in ${of === 1 ? "this payload" : `all ${of} payloads`}.</p>`;
  const some = have === 0 ? html`<b>${of === 1 ? "This payload has no such field" : `None of these ${of} payloads has such a field`}</b>` : html`<b>Only ${have} of these ${of} payloads ${have === 1 ? "has" : "have"} such a field</b>`;
  return html`<p class="note warn clue"><span>The error names <code>${field}</code>. ${some}.${example && html` An event on the same topic that did not fail has it: <code>${example[0]}: ${written(example[1])}</code>.`}</span></p>`;
}

export function Traceback({ text }) {
  return html`
    <details class="traceback" open>
      <summary>Traceback</summary>
      <div class="json">
        <pre tabindex="0" role="region" aria-label="Traceback"><code>${text.trimEnd()}</code></pre>
        <${Copy} text=${text} />
      </div>
    </details>
  `;
}
