// The parts that pages are made of. A page imports them from here, and the toolkit with them.

import { h, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import htm from "./vendor/htm.js";
import { Problem, access, get, sleep, url } from "./api.js";
import { ago, clock, full } from "./words.js";

export { render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";

/**
 * Elements, as in HTML. Those of a template that never change are made anew, too: htm would keep the first, which Preact links to the page that it was
 * in, and that to all that was drawn since. So the live events held every row that was ever shown.
 */
export const html = htm.bind(element);

function element(...given) {
  this[0] = 3; // to htm: this one may change
  return h(...given);
}

const LARGEST = 20_000; // characters of a JSON view, until all is asked for
const TOAST = 6_000; // milliseconds for which a toast is seen
const TICK = 5_000; // milliseconds between two looks at how long ago something was

// ---------------------------------------------------------------- data

/**
 * What the service says at a path, asked again every so often while the page is looked at.
 * @param {string | null} path Null asks nothing.
 * @param {{query?: object, every?: number, parse?: (text: string) => any}} [how] `every` is in milliseconds; `parse` is instead of JSON.parse.
 * @returns {{data: any, problem: Problem | null, loading: boolean, refresh: () => void}} After a failure `data` is what was known before.
 */
export function useData(path, { query, every, parse } = {}) {
  const asked = path === null ? null : url(path, query);
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState({ asked, data: null, problem: null, loading: asked !== null });
  useEffect(() => {
    if (asked === null) return undefined;
    const ending = new AbortController();
    setState((old) => (old.asked === asked ? { ...old, loading: true } : { asked, data: null, problem: null, loading: true }));
    poll(asked, every, { signal: ending.signal, parse }, setState);
    return () => ending.abort();
  }, [asked, every, turn]);
  const known = state.asked === asked ? state : { data: null, problem: null, loading: asked !== null };
  return { data: known.data, problem: known.problem, loading: known.loading, refresh: () => setTurn((now) => now + 1) };
}

async function poll(asked, every, options, setState) {
  const { signal } = options;
  let first = true;
  do {
    if (first || !document.hidden) {
      first = false;
      try {
        const data = await get(asked, {}, options);
        if (!signal.aborted) setState({ asked, data, problem: null, loading: false });
      } catch (problem) {
        if (!signal.aborted && !access.wanted) setState((old) => ({ ...old, problem, loading: false }));
      }
    }
    if (every) await sleep(every, signal);
  } while (every && !signal.aborted);
}

/** The time, again every few seconds: for what says how long ago something was. */
export function useNow(every = TICK) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

// ---------------------------------------------------------------- a page and its parts

/** A page: its heading, what it is for in a sentence, what can be done on it, and itself. */
export function Page({ title, lead, actions, back, children }) {
  return html`
    <header class="head">
      <div>
        ${back && html`<a class="back" href=${back.href}>${Icon({ name: "back" })}${back.title}</a>`}
        <h1 tabindex="-1">${title}</h1>
        ${lead && html`<p class="lead">${lead}</p>`}
      </div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>
    ${children}
  `;
}

/** A part of a page with a heading of its own. `tight`: its content reaches its edges, as a table does. */
export function Card({ title, lead, actions, tight, children }) {
  return html`
    <section class=${`card ${tight ? "tight" : ""}`}>
      ${(title || actions) &&
      html`<header>
        <div>${title && html`<h2>${title}</h2>`}${lead && html`<p class="lead">${lead}</p>`}</div>
        ${actions && html`<div class="actions">${actions}</div>`}
      </header>`}
      ${children}
    </section>
  `;
}

/** One number and what it is. `tone` is good, warn or bad. */
export function Stat({ label, value, unit, hint, tone = "" }) {
  return html`
    <div class=${`stat ${tone}`}>
      <dt>${label}</dt>
      <dd>${value}${unit && html`<small>${unit}</small>`}${hint && html`<span class="hint">${hint}</span>`}</dd>
    </div>
  `;
}

/** Numbers side by side; its children are of Stat. */
export const Stats = ({ children }) => html`<dl class="stats">${children}</dl>`;

/** What is said of one thing: [name, value] pairs; those whose value is null, undefined or "" are left out. */
export function Facts({ facts }) {
  const said = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">${said.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** A word about a state; `tone` is good, warn, bad, accent or nothing. */
export const Badge = ({ tone = "", title, children }) => html`<span class=${`badge ${tone}`} title=${title}>${children}</span>`;

/** A button; `kind` is primary, danger, quiet or nothing, `busy` shows that it works. */
export function Button({ kind = "", icon, busy = false, disabled = false, children, ...rest }) {
  return html`<button type="button" class=${`button ${kind}`} disabled=${disabled || busy} aria-busy=${busy} ...${rest}>
    ${icon && Icon({ name: icon })}${children}
  </button>`;
}

/**
 * Rows, which on a narrow screen are cards.
 * @param {object} its
 * @param {string} its.label What it lists, for who does not see it.
 * @param {{title: string, show: (row: any) => any, number?: boolean, wide?: boolean, quiet?: boolean}[]} its.columns The first one names the row.
 *   `number` is set to the right, `wide` may break its words, of `quiet` no title is shown on a card.
 * @param {any[] | null} its.rows Null while they are not known.
 * @param {(row: any) => string} its.rowKey
 * @param {any} [its.empty] What is said where there is none.
 * @param {boolean} [its.still] A row that was drawn stays as it is: so many new ones a second cost no more than they have to.
 */
export function Table({ label, columns, rows, rowKey, empty, rowClass = () => "", still = false }) {
  if (rows === null || rows === undefined) return html`<${Loading} />`;
  if (rows.length === 0) return empty ?? html`<${Empty} title="Nothing here" />`;
  // A table whose rows are drawn as cards is none any more to a screen reader: so each part says what it is.
  return html`
    <table role="table" aria-label=${label}>
      <thead role="rowgroup">
        <tr role="row">
          ${columns.map((column) => html`<th role="columnheader" scope="col" class=${column.number ? "number" : ""} key=${column.title}>${column.quiet ? html`<span class="unseen">${column.title}</span>` : column.title}</th>`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map((row) => html`<${Row} key=${rowKey(row)} row=${row} columns=${columns} class=${rowClass(row)} still=${still} />`)}
      </tbody>
    </table>
  `;
}

// Not by useMemo: what that keeps goes on to hold the page as it was when the row was new, with the rows of then, and they theirs.
function Row({ row, columns, class: its }) {
  this.shouldComponentUpdate = changed;
  return drawn(row, columns, its);
}

/** Whether a row is to be drawn again, of which this is the component. */
function changed(next) {
  const { row, columns, class: its, still } = this.props;
  return next.row !== row || !(still || (next.columns === columns && next.class === its));
}

function drawn(row, columns, its) {
  const cells = columns.map((column, index) => {
    const kind = [column.number && "number", column.wide && "wide", column.quiet && "quiet", index === 0 && "first"].filter(Boolean).join(" ");
    return html`<td role="cell" class=${kind} data-title=${column.quiet ? null : column.title} key=${column.title}><div>${column.show(row)}</div></td>`;
  });
  return html`<tr role="row" class=${its}>${cells}</tr>`;
}

/** Where there is nothing to show: why, and what would change that. */
export function Empty({ title, icon = "calm", children }) {
  return html`<div class="empty">${Icon({ name: icon })}<p class="title">${title}</p>${children && html`<div>${children}</div>`}</div>`;
}

export const Loading = () => html`<div class="loading" role="status"><span class="spinner"></span>Loading…</div>`;

/** What went wrong, in the server's words. */
export function Failure({ problem, retry }) {
  if (!problem) return null;
  return html`
    <div class="failure" role="alert">
      ${Icon({ name: "alert" })}
      <div>
        <p>${problem.message}</p>
        ${problem.errors?.length > 0 && html`<ul>${problem.errors.map((each) => html`<li key=${each}>${each}</li>`)}</ul>`}
      </div>
      ${retry && html`<${Button} kind="quiet" onClick=${retry}>Try again</${Button}>`}
    </div>
  `;
}

/** A moment, Unix seconds or ISO 8601: the time of day, or with `relative` how long ago; the title has all of it. */
export function Time({ at, relative = false }) {
  if (at === null || at === undefined) return html`<span class="soft">–</span>`;
  const when = typeof at === "number" ? new Date(at * 1000).toISOString() : at;
  return html`<time datetime=${when} title=${full(at)}>${relative ? html`<${Ago} at=${at} />` : clock(at)}</time>`;
}

function Ago({ at }) {
  return ago(at, useNow());
}

/** An id: short, in full as its title, a link if it leads somewhere. */
export function Id({ id, href, whole = false }) {
  const shown = whole || id.length <= 14 ? id : `…${id.slice(-8)}`;
  return href ? html`<a class="id" href=${href} title=${id}>${shown}</a>` : html`<span class="id" title=${id}>${shown}</span>`;
}

/** Any value as JSON, in colours; a long one is cut until all of it is asked for. */
export function Json({ value, label = "JSON" }) {
  const [all, setAll] = useState(false);
  const text = useMemo(() => JSON.stringify(value, null, 2) ?? "null", [value]);
  const cut = !all && text.length > LARGEST;
  const parts = useMemo(() => coloured(cut ? text.slice(0, LARGEST) : text), [text, cut]);
  return html`
    <div class="json">
      <pre tabindex="0" role="region" aria-label=${label}><code>${parts}</code></pre>
      <${Copy} text=${text} />
      ${cut && html`<${Button} kind="quiet" onClick=${() => setAll(true)}>Show all ${text.length.toLocaleString("en")} characters</${Button}>`}
    </div>
  `;
}

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON text as pieces, each in its colour. */
function coloured(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(TOKEN)) {
    if (found.index > end) parts.push(text.slice(end, found.index));
    const [whole, string, colon] = found;
    if (string && colon) parts.push(html`<span class="key">${string}</span>`, colon);
    else parts.push(html`<span class=${string ? "string" : "value"}>${whole}</span>`);
    end = found.index + whole.length;
  }
  parts.push(text.slice(end));
  return parts;
}

/** A button that copies. */
export function Copy({ text }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text); // not there over plain HTTP from another machine
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      toast("The browser does not let this page copy: mark the text instead.", "bad");
    }
  };
  return html`<button type="button" class="button quiet icon copy" aria-label=${done ? "Copied" : "Copy"} title="Copy" onClick=${copy}>${Icon({ name: done ? "check" : "copy" })}</button>`;
}

// ---------------------------------------------------------------- forms

let fields = 0;

/**
 * One field with its label: `type` is that of an input, or textarea, select or checkbox.
 * @param {{label: string, type?: string, value: any, onChange: (value: any) => void, options?: (string | [string, string])[], hint?: any, error?: string}} its
 *   `options` of a select are values, or [value, title].
 */
export function Field({ label, type = "text", value, onChange, options = [], hint, error, mono = false, hidden = false, ...rest }) {
  const id = useMemo(() => `field-${(fields += 1)}`, []);
  const about = { id, "aria-describedby": hint || error ? `${id}-hint` : undefined, "aria-invalid": error ? "true" : undefined };
  const changed = (event) => onChange(type === "checkbox" ? event.target.checked : event.target.value);
  const kind = mono ? "mono" : "";
  let input;
  if (type === "textarea") input = html`<textarea class=${kind} ...${about} ...${rest} value=${value} onInput=${changed} spellcheck="false" />`;
  else if (type === "checkbox") input = html`<input type="checkbox" ...${about} ...${rest} checked=${value} onChange=${changed} />`;
  else if (type === "select") {
    const choices = options.map((each) => (Array.isArray(each) ? each : [each, each]));
    input = html`<select ...${about} ...${rest} value=${value} onChange=${changed}>
      ${choices.map(([each, title]) => html`<option key=${each} value=${each} selected=${each === value}>${title}</option>`)}
    </select>`;
  } else input = html`<input type=${type} class=${kind} ...${about} ...${rest} value=${value} onInput=${changed} autocomplete="off" spellcheck="false" />`;
  return html`
    <div class=${`field ${type === "checkbox" ? "check" : ""} ${hidden ? "unlabelled" : ""}`}>
      <label for=${id}>${label}</label>
      ${input}
      ${(hint || error) && html`<p class=${error ? "hint bad" : "hint"} id=${`${id}-hint`}>${error || hint}</p>`}
    </div>
  `;
}

/** A choice of few, side by side: `options` are [value, title]. */
export function Choice({ label, options, value, onChange }) {
  return html`
    <div class="choice" role="group" aria-label=${label}>
      ${options.map(([each, title]) => html`<button type="button" key=${each} aria-pressed=${each === value} onClick=${() => onChange(each)}>${title}</button>`)}
    </div>
  `;
}

// ---------------------------------------------------------------- the dialog that asks first

let question = null;
const asking = new EventTarget();

/**
 * Ask before something is changed. The dialog says what will happen, does it, shows the server's own words if that fails, and a toast if not.
 * @param {object} its
 * @param {string} its.title Such as "Purge worker-1?".
 * @param {any} its.says What will happen: text or markup, or a function of the fields' values that returns that, or a promise of it (a dry run).
 * @param {string} its.verb What its button says.
 * @param {boolean} [its.danger] It cannot be undone.
 * @param {boolean} [its.wide] There is much to see.
 * @param {object[]} [its.fields] As Field takes them, with a `name` and a first `value`; `when(values)` says whether one is shown.
 * @param {(values: object) => Promise<any>} its.run Does it.
 * @param {(result: any, values: object) => string} [its.done] What the toast says.
 * @returns {Promise<any>} What `run` returned; undefined if it was not done.
 */
export function ask(its) {
  question?.answer(undefined);
  return new Promise((resolve) => {
    const number = (fields += 1);
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

// ---------------------------------------------------------------- toasts

const toasts = Object.assign(new EventTarget(), { list: [] });

/** Say something that goes by itself; `tone` is good, bad or nothing. */
export function toast(text, tone = "") {
  const each = { text, tone, number: (fields += 1) };
  const set = (list) => {
    toasts.list = list;
    toasts.dispatchEvent(new Event("change"));
  };
  set([...toasts.list.slice(-2), each]);
  setTimeout(() => set(toasts.list.filter((other) => other !== each)), TOAST);
}

/** Where toasts appear; the shell has one. */
export function Toasts() {
  const [list, setList] = useState(toasts.list);
  useEffect(() => {
    const changed = () => setList(toasts.list);
    toasts.addEventListener("change", changed);
    return () => toasts.removeEventListener("change", changed);
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">${list.map((each) => html`<p key=${each.number} class=${each.tone}>${Icon({ name: each.tone === "bad" ? "alert" : "check" })}${each.text}</p>`)}</div>`;
}

// ---------------------------------------------------------------- icons

const ICONS = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  events: "M4 6h16M4 12h16M4 18h10",
  subscriptions: "M4 13v5a2 2 0 0 0 2 2h12a2 2 0 0 0 2-2v-5M4 13l3-8h10l3 8M4 13h5l1 3h4l1-3h5",
  letters: "M4 6h16v12H4zM4 7l8 6 8-6",
  conversations: "M6 4v10a3 3 0 0 0 3 3h5M6 8h8M14 6h6v4h-6zM14 15h6v4h-6z",
  replays: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4",
  schemas: "M8 4c-2 0-3 1-3 3v2c0 2-1 3-2 3 1 0 2 1 2 3v2c0 2 1 3 3 3M16 4c2 0 3 1 3 3v2c0 2 1 3 2 3-1 0-2 1-2 3v2c0 2-1 3-3 3",
  agents: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21c0-4 4-6 8-6s8 2 8 6",
  routers: "M12 12v8M8 20h8M12 12a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM7 14a6 6 0 0 1 0-8M17 6a6 6 0 0 1 0 8",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  moon: "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z",
  leave: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  back: "M15 6l-6 6 6 6",
  next: "M9 6l6 6-6 6",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  edit: "M4 20h4L19 9l-4-4L4 16z",
  send: "M4 12l16-8-5 16-3-7z",
  add: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l5 5",
  check: "M5 12l5 5L19 7",
  copy: "M9 9h11v11H9zM5 15V4h11",
  close: "M6 6l12 12M18 6L6 18",
  alert: "M12 4l9 16H3zM12 10v4M12 17h.01",
  calm: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8.5 14.5c2 2 5 2 7 0M9 9.5h.01M15 9.5h.01",
  broom: "M14 4l6 6M17 7l-6 6M11 11l4 4-5 5H4v-6l5-5z",
};

/** One of the icons by its name; it says nothing to who does not see it. */
export const Icon = ({ name }) => html`<svg class="glyph" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
