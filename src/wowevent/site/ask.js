// The dialog that asks before something is changed.

import { Button, Failure, Field, Loading, html, toast, useEffect, useRef, useState } from "./kit.js";
import { Problem } from "./api.js";

/** @type {any} */
let question = null; // that is asked now
const asking = new EventTarget();
let asked = 0; // questions so far

/**
 * Ask before something is changed. The dialog says what will happen, does it, shows the server's own words if that fails, and a toast if not.
 * @param {object} its
 * @param {string} its.title Such as "Purge worker-1?".
 * @param {any} its.says What will happen: text or markup, or a function of the fields' values that returns that, or a promise of it (a dry run).
 * @param {string} its.verb What its button says.
 * @param {boolean} [its.danger] It cannot be undone.
 * @param {boolean} [its.wide] There is much to see.
 * @param {object[]} [its.fields] As Field takes them, with a `name` and a first `value`; `when(values)` says whether one is shown.
 * @param {(values: any) => Promise<any>} its.run Does it.
 * @param {(result: any, values: any) => string} [its.done] What the toast says.
 * @returns {Promise<any>} What `run` returned; undefined if it was not done.
 */
export function ask(its) {
  question?.answer(undefined);
  return new Promise((resolve) => {
    const number = (asked += 1);
    const answer = (result) => {
      if (question?.number !== number) return; // it was answered
      question = null;
      asking.dispatchEvent(new Event("change"));
      resolve(result);
    };
    question = { ...its, answer, number };
    asking.dispatchEvent(new Event("change"));
  });
}

/** Where questions appear; the shell has one. */
export function Questions() {
  const [shown, setShown] = useState(question);
  useEffect(() => {
    const changed = () => setShown(question);
    asking.addEventListener("change", changed);
    return () => asking.removeEventListener("change", changed);
  }, []);
  return shown && html`<${Question} key=${shown.number} ...${shown} />`;
}

function Question({ title, says, verb, danger, wide, fields: wanted = [], run, done, answer }) {
  const box = useRef(null);
  const [values, setValues] = useState(() => Object.fromEntries(wanted.map((field) => [field.name, field.value ?? ""])));
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const { text, ready, failed } = useSaying(says, values);
  useEffect(() => {
    box.current.showModal();
    return () => box.current?.close();
  }, []);
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      const result = await run(values);
      toast(done ? done(result, values) : "Done.", "good");
      answer(result ?? true);
    } catch (error) {
      if (!(error instanceof Problem)) console.error(error);
      setProblem(error);
      setBusy(false);
    }
  };
  const shown = wanted.filter((field) => !field.when || field.when(values));
  return html`
    <dialog ref=${box} class=${wide ? "wide" : ""} aria-labelledby="question" onClose=${() => answer(undefined)} onCancel=${(event) => (event.preventDefault(), busy || answer(undefined))}>
      <form onSubmit=${act}>
        <h2 id="question">${title}</h2>
        <div class="says" aria-live="polite">${text}</div>
        ${shown.map(({ name, when: _when, value: _value, ...field }) => {
          const changed = (value) => {
            setProblem(null);
            setValues((old) => ({ ...old, [name]: value }));
          };
          return html`<${Field} key=${name} name=${name} ...${field} value=${values[name]} onChange=${changed} />`;
        })}
        <${Failure} problem=${problem ?? failed} />
        <footer>
          <${Button} kind="quiet" disabled=${busy} onClick=${() => answer(undefined)}>Cancel</${Button}>
          <button type="submit" class=${`button ${danger ? "danger" : "primary"}`} disabled=${busy || !ready} aria-busy=${busy}>${verb}</button>
        </footer>
      </form>
    </dialog>
  `;
}

/** What a question says, which may have to be asked of the service first; again when a field changes. */
function useSaying(says, values) {
  const asks = typeof says === "function";
  const [state, setState] = useState({ text: asks ? html`<${Loading} />` : says, ready: !asks, failed: null });
  useEffect(() => {
    if (!asks) return undefined;
    let current = true;
    const told = (next) => current && setState(next);
    (async () => told({ text: await says(values), ready: true, failed: null }))().catch((failed) => told({ text: null, ready: false, failed }));
    return () => {
      current = false;
    };
  }, [values]);
  return state;
}
