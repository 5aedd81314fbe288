// Asking the service: JSON, lines and streams, each request with the token of who looks.
//
// EventSource and links send no Authorization header, so streams are read by fetch, too. Every wait has an end: a request is given up
// after PATIENCE, a stream that says nothing for SILENCE (the service pings sooner) is opened again behind what came last.

const PATIENCE = 30_000; // milliseconds for an answer
const SILENCE = 40_000; // milliseconds without a word on a stream: the service says `: ping` after 15 s
const AWAY = 60_000; // milliseconds for which a tab may be hidden and its stream still goes on behind what came last
const FIRST_PAUSE = 500; // milliseconds before a stream is opened again,
const LONGEST_PAUSE = 10_000; // doubled each time, up to this
const KEY = "wowevent.token";

/** What went wrong, in the words of the service; see docs/http.md, Failures. */
export class Problem extends Error {
  /**
   * @param {number} status The HTTP status; 0 where there was no answer.
   * @param {string} code Stable, such as `not_permitted`.
   * @param {string} message For people.
   * @param {string[]} [errors] Every wrong field, where it is about fields.
   */
  constructor(status, code, message, errors = []) {
    super(message);
    this.status = status;
    this.code = code;
    this.errors = errors;
  }
}

/** Says `change` when a token is asked for (`wanted`), was given or was forgotten. */
export const access = Object.assign(new EventTarget(), { wanted: false, refused: "" });

/** @returns {string} The token of this tab; empty where none was given. */
export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** @param {string} secret Of `wowevent token create`, or a JWT; empty forgets it. It ends with the tab. */
export function setToken(secret) {
  if (secret) sessionStorage.setItem(KEY, secret);
  else sessionStorage.removeItem(KEY);
  access.wanted = false;
  access.refused = "";
  access.dispatchEvent(new Event("change"));
}

/** A path below here with a query; null, undefined and "" are left out, an array is given several times. */
export function url(path, query = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") asked.append(name, String(each));
    }
  }
  const text = asked.toString();
  return text ? `${path}?${text}` : path;
}

/** An id as one part of a path: `worker~task.*` and the like. */
export const part = (id) => encodeURIComponent(id);

export const get = (path, query, options) => call("GET", url(path, query), undefined, options);
export const post = (path, body = {}, options) => call("POST", path, body, options);
export const put = (path, body, options) => call("PUT", path, body, options);
export const remove = (path, options) => call("DELETE", path, undefined, options);

/**
 * One request and its JSON answer; null where the answer is empty.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @param {{signal?: AbortSignal, answers?: number[], parse?: (text: string) => any}} [options] `answers` are statuses of failures whose body is wanted.
 * @throws {Problem} For any other failure, and where nobody answers; an AbortError once `signal` says so.
 */
export async function call(method, path, body, { signal, answers = [], parse = JSON.parse } = {}) {
  const answer = await send(method, path, body, bounded(signal, PATIENCE));
  if (!answer.ok && !answers.includes(answer.status)) throw await problemOf(answer);
  const text = await answer.text().catch((error) => {
    throw told(error);
  });
  return text ? parse(text) : null;
}

/**
 * Server-Sent Events until `signal` says so: opened again, behind what came last, whenever the stream ends. A tab that is hidden has none: a
 * browser has six connections to a service for all of its tabs.
 * @param {string} path As `url` makes it.
 * @param {{signal: AbortSignal, onEvent: (data: any) => void, onNote?: (name: string, data: any) => void, onState?: (state: string, problem?: Problem) => void}} told
 *   `onNote` is told what has a name (`reset`, `skipped`), `onState` of "open", "away" and "refused", which is the end.
 */
export async function follow(path, { signal, onEvent, onNote = () => {}, onState = () => {} }) {
  let last = "";
  let pause = FIRST_PAUSE;
  const taken = ({ name, data, id }) => {
    if (id) last = id;
    if (data === "") return;
    if (name === "message") onEvent(JSON.parse(data));
    else onNote(name, JSON.parse(data));
  };
  while (!signal.aborted) {
    const hidden = await untilSeen(signal);
    if (hidden > AWAY && last) {
      last = "";
      onNote("reset", { lost: null, message: "What came while this tab was hidden is in the history." });
    }
    try {
      for await (const message of stream(path, last, signal, () => onState("open"))) {
        pause = FIRST_PAUSE;
        taken(message);
      }
    } catch (error) {
      if (signal.aborted) return;
      const refused = error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429;
      if (refused && !last) return onState("refused", error);
      if (refused) last = ""; // it is gone from the log, or the token is for what comes alone
    }
    if (document.hidden) continue;
    onState("away");
    await sleep(pause, signal);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

/** Wait until the tab is looked at; for how long that was, in milliseconds. */
async function untilSeen(signal) {
  const since = performance.now();
  while (document.hidden && !signal.aborted) {
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true, signal });
      signal.addEventListener("abort", resolve, { once: true });
    });
  }
  return performance.now() - since;
}

async function* stream(path, last, signal, opened) {
  const quiet = new AbortController();
  const hide = () => document.hidden && quiet.abort();
  let timer = setTimeout(() => quiet.abort(), SILENCE);
  document.addEventListener("visibilitychange", hide);
  try {
    const both = AbortSignal.any([signal, quiet.signal]);
    const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
    const answer = await send("GET", path, undefined, both, headers);
    if (!answer.ok) throw await problemOf(answer);
    opened();
    const words = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await words.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => quiet.abort(), SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) yield message(block);
    }
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", hide);
    quiet.abort(); // whoever leaves the loop early leaves the connection, too
  }
}

/** One block of a stream, as the service writes it: a line feed ends a line, data is one line. */
function message(block) {
  const found = { name: "message", data: "", id: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("data: ")) found.data = line.slice(6);
    else if (line.startsWith("id: ")) found.id = line.slice(4);
    else if (line.startsWith("event: ")) found.name = line.slice(7);
  }
  return found;
}

async function send(method, path, body, signal, headers = {}) {
  const secret = token();
  const all = {
    ...headers,
    ...(secret ? { authorization: `Bearer ${secret}` } : {}),
    ...(body === undefined ? {} : { "content-type": "application/json" }),
  };
  let answer;
  try {
    answer = await fetch(path, { method, headers: all, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    throw told(error);
  }
  if (answer.status === 401) want(secret);
  return answer;
}

/** A failure without an answer, in words. */
function told(error) {
  if (error.name === "TimeoutError") return new Problem(0, "timeout", "The service took too long to answer.");
  if (error.name === "AbortError") return error;
  return new Problem(0, "unreachable", "The service does not answer. Is it running?");
}

/** Ask for a token, unless another one was given since this request left. */
function want(sent) {
  if (sent !== token()) return;
  access.wanted = true;
  access.refused = sent ? "The service does not take this token: it may be wrong, expired or revoked." : "";
  access.dispatchEvent(new Event("change"));
}

async function problemOf(answer) {
  const text = await answer.text().catch(() => "");
  try {
    const { error, message: said, errors } = JSON.parse(text);
    return new Problem(answer.status, error, said, errors);
  } catch {
    return new Problem(answer.status, "http", `The service answered ${answer.status} ${answer.statusText}`.trim());
  }
}

const bounded = (signal, patience) => {
  const end = AbortSignal.timeout(patience);
  return signal ? AbortSignal.any([signal, end]) : end;
};

/**
 * Wait, no longer than until `signal` says so.
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export const sleep = (milliseconds, signal) =>
  new Promise((resolve) => {
    const ended = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", ended);
      resolve();
    };
    const timer = setTimeout(ended, signal?.aborted ? 0 : milliseconds);
    signal?.addEventListener("abort", ended);
  });
