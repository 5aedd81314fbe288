// The parts that pages are made of. A page imports them from here, and the toolkit with them.

import { access, get, sleep, url } from "./api.js";
import { html, useEffect, useMemo, useState } from "./html.js";
import { Icon } from "./icons.js";
import { ago, clock, full, short } from "./words.js";

export { html, render, useEffect, useMemo, useRef, useState } from "./html.js";
export { Icon } from "./icons.js";

const LARGEST = 20_000; // characters of a JSON view, until all is asked for
const TOAST = 6_000; // milliseconds for which a toast is seen
const TICK = 5_000; // milliseconds between two looks at how long ago something was

// ---------------------------------------------------------------- data

/**
 * What the service says at a path, asked again every so often while the page is looked at.
 * @param {string | null} path Null asks nothing.
 * @param {{query?: object, every?: number | ((data: any) => number), parse?: (text: string) => any}} [how] `every` is in milliseconds, 0 for
 *   never again; a function of what is known (null before that) is the same one each time. `parse` is instead of JSON.parse.
 * @returns {{data: any, problem: import("./api.js").Problem | null, loading: boolean, refresh: () => void}} After a failure `data` is what was known before.
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
  let data = null;
  let pause;
  do {
    if (first || !document.hidden) {
      first = false;
      try {
        data = await get(asked, {}, options);
        if (!signal.aborted) setState({ asked, data, problem: null, loading: false });
      } catch (problem) {
        if (!signal.aborted && !access.wanted) setState((old) => ({ ...old, problem, loading: false }));
      }
    }
    pause = typeof every === "function" ? every(data) : every;
    if (pause) await sleep(pause, signal);
  } while (pause && !signal.aborted);
}

/** The time, again every few seconds: for what says how long ago something was. */
function useNow(every = TICK) {
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
 * @param {(row: any) => string} [its.rowClass]
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
/** @this {any} */
function Row({ row, columns, class: its }) {
  this.shouldComponentUpdate = changed;
  return drawn(row, columns, its);
}

/** Whether a row is to be drawn again, of which this is the component. @this {any} */
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
  const shown = whole ? id : short(id);
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
 * @param {{label: string, type?: string, value: any, onChange: (value: any) => void, options?: (string | [string, string])[], hint?: any, error?: string, mono?: boolean, hidden?: boolean}} its
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

// ---------------------------------------------------------------- toasts

const toasts = Object.assign(new EventTarget(), { list: /** @type {{text: string, tone: string, number: number}[]} */ ([]) });

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
