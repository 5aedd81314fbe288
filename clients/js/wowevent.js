/**
 * WowEvent for browsers, and what else has WebSocket.
 *
 *   publish ──> outbox ──> router               an event leaves the outbox once the router has stored it
 *   router ──> inbox ──> handler ──> settled    a subscription goes on behind what came last
 *
 * What travels (events, subscriptions, verdicts) has the names of the frames, which docs/websocket.md explains; times
 * are seconds. What is promised of each function, and its types, stand in wowevent.d.ts.
 */

const DEFAULTS = {
  WebSocket: globalThis.WebSocket,
  retry: false,
  reconnectInterval: 1,
  maxReconnectInterval: 30,
  reconnectDecay: 1.5,
  heartbeatInterval: 30,
  timeout: 10,
  maxOutbox: 10_000, // events
  maxOutboxSize: 16 * 1024 * 1024, // characters of JSON
  onState: () => {},
  log: console,
};
const PASSING = new Set(["broker_unavailable", "storage_full", "request_timeout", "outbox_full", "rate_limited"]);
const SECRETS = ["token", "access_token", "api_key", "authorization"];
const INBOX = 1_000; // events without a token that wait here; the log holds the others
const HELD = 2_000; // tokens that a subscribe frame names
const TOKENS = 1_000; // and an ack
const REMEMBERED = 10_000; // events whose acknowledgement came too late
const REPLIES = 1_000; // that wait for a connection; the askers' timeouts are running
const DEPTH = 34; // of a frame around a payload of 32
const HALF = /(?:^|[^\\])(?:\\\\)*\\ud[89a-f]/; // as JSON.stringify escapes it; whole characters it leaves as they are
const [REFUSED, UNKNOWN, OVER] = [1008, 4501, 4502]; // close codes

/** @import {Client as Promised, State} from "./wowevent.js" */
/** @typedef {{promise: Promise<any>, resolve: (value?: any) => void, reject: (error: unknown) => void}} Deferred */
/** @typedef {{socket: any, ready: boolean, heard: number, since: number}} Line `since` is when it became ready */

/** What goes wrong, by its code on the wire. */
export class BusError extends Error {
  /** @param {string} code @param {string} message @param {number} [retryAfter] */
  constructor(code, message, retryAfter) {
    super(message);
    this.name = "BusError";
    this.code = code;
    this.retryable = PASSING.has(code);
    this.retryAfter = retryAfter;
  }
}

/** Thrown by a handler that wants another verdict than a failed attempt. */
export class Nack extends Error {
  /** @param {import("./wowevent.js").Verdict} verdict the fields of a `nack` frame */
  constructor(verdict) {
    super(verdict.error ?? "not handled");
    encode(verdict); // what cannot be said is said here
    this.name = "Nack";
    this.verdict = verdict;
  }
}

/** Fields of what follows from an event. @param {import("./wowevent.js").Event} event */
export function following({ event_id, correlation_id, trace_id, traceparent, execution_id, hops = 0, headers }) {
  return { parent_event_id: event_id, correlation_id, trace_id, traceparent, execution_id, hops: hops + 1, headers };
}

/** A client that is connected. @param {string} url @param {import("./wowevent.js").Options} [options] */
export async function connect(url, options) {
  const client = new Client(url, options);
  await client.connect();
  return client;
}

/** One agent's connection to a router; it survives the connection's breaks. @implements {Promised} */
export class Client {
  /** @type {State} */
  state = "idle";
  #url;
  #options;
  #instance = newId(); // the same in each connection: what it holds stays its own
  /** @type {Line | null} */
  #line = null; // the connection, or the attempt
  #timer; // to give that up, make another, or ping
  #pause; // seconds until the next attempt, at most
  /** @type {Deferred | null} */
  #first = null; // who waits for the first connection
  #reached = false;
  /** @type {BusError | null} */
  #ended = null; // why there will be none
  /** @type {Promise<void> | null} */
  #closing = null;
  #maxFrame = 320 * 1024;
  #refs = 0;
  #outbox = new Map(); // what is not confirmed, by ref, in its order
  #size = 0; // characters in it
  #questions = new Map(); // what is not answered, by ref
  #replies = [];
  #subscriptions = new Set();
  #served = new Map(); // by the router's ids in this connection
  #looks = new Set(); // of who waits for something to be so

  /** @param {string} url @param {import("./wowevent.js").Options} [options] */
  constructor(url, options = {}) {
    const { protocol, username, searchParams } = new URL(url);
    if (protocol !== "ws:" && protocol !== "wss:") throw new TypeError("a router's url is ws://… or wss://…");
    if (username || SECRETS.some((name) => searchParams.has(name))) throw new TypeError("a url is logged: no secrets");
    this.#url = url;
    this.#options = { ...DEFAULTS, ...given(options) };
    this.#pause = this.#options.reconnectInterval;
    if (!this.#options.WebSocket) throw new TypeError("there is no WebSocket here: give one as an option");
  }

  connect() {
    if (this.#ended) return Promise.reject(this.#ended);
    if (!this.#first) {
      this.#first = deferred();
      this.#dial();
    }
    return this.#first.promise;
  }

  close() {
    const subs = this.#subscriptions;
    const said = () => !this.#outbox.size && every(subs, (sub) => !sub.ready.size);
    const idle = () => every(subs, (sub) => !sub.running) && (!this.#line?.ready || said());
    this.#closing ??= this.#until(idle).then(() => {
      if (!this.#ended) this.#end(new BusError("closed", "it was closed"));
    });
    return this.#closing.then(() => {});
  }

  async publish(topic, payload = {}, fields = {}) {
    this.#check();
    const ref = (this.#refs += 1);
    const text = encode({ type: "publish", ref, event: made(topic, payload, fields) }, this.#maxFrame);
    if (this.#outbox.size >= this.#options.maxOutbox || this.#size + text.length > this.#options.maxOutboxSize) {
      throw new BusError("outbox_full", `${this.#outbox.size} events wait for the router already`);
    }
    const entry = { ref, text, ...deferred() };
    this.#outbox.set(ref, entry);
    this.#size += text.length;
    this.#send(text);
    return entry.promise;
  }

  async request(topic, payload = {}, { timeout = 5, ...fields } = {}) {
    const frame = { type: "request", event: made(topic, payload, fields), timeout };
    return (await this.#ask(frame, timeout + 1)).reply ?? null; // the router's own word on it comes first
  }

  async health() {
    return (await this.#ask({ type: "get_health" })).health;
  }

  async subscribe(topics, handler, settings = {}) {
    if (this.#ended) throw this.#ended;
    if (typeof handler !== "function") throw new TypeError("a subscription needs a handler");
    const { log } = this.#options;
    const sub = new Subscription(handler, {
      lost: (count) => log.warn("wowevent: events are missing", topics, count),
      ended: (error) => log.error("wowevent: subscription ended", topics, error),
      ...given(settings),
      topics: [topics].flat(),
    });
    this.#subscriptions.add(sub);
    if (this.#line?.ready) {
      sub.waiter = deferred();
      this.#serve(sub);
      await sub.waiter.promise;
    }
    return {
      unsubscribe: () => this.#leave(sub),
      get position() {
        return sub.position;
      },
    };
  }

  // --- the connection ---------------------------------------------------------------------------------------------

  async #dial() {
    const { WebSocket, token, timeout } = this.#options;
    /** @type {Line} */
    const line = { socket: null, ready: false, heard: 0, since: Infinity };
    this.#line = line;
    this.#become("connecting");
    this.#wait(timeout, () => this.#lose(`no answer within ${timeout} s`));
    try {
      const shown = typeof token === "function" ? await token() : token;
      if (line !== this.#line) return; // given up meanwhile
      line.socket = new WebSocket(this.#url);
      const on = (name, act) => line.socket.addEventListener(name, (event) => line === this.#line && act(event));
      on("message", ({ data }) => this.#hear(line, JSON.parse(data), shown));
      on("close", ({ code, reason }) => this.#lose(reason, code));
      on("error", () => {}); // its close follows
    } catch (error) {
      if (line === this.#line) this.#lose(String(error));
    }
  }

  #hear(line, frame, token) {
    line.heard += 1;
    const { type, subscription_id } = frame;
    const question = this.#questions.get(frame.ref);
    if (question) question.done(type === "error" ? errorOf(frame) : null, frame);
    else if (type === "events") frame.events.forEach((item) => this.#take(item));
    else if (type === "event") this.#take(frame);
    else if (type === "published" || type === "error") this.#answered(frame);
    else if (type === "welcome") this.#greet(line, frame, token);
    else if (type === "reset") this.#served.get(subscription_id)?.lost(frame.lost ?? null);
    else if (type === "subscribed") this.#giveBack(subscription_id); // too late
    else if (type === "unsubscribed" && this.#served.has(subscription_id)) {
      this.#drop(this.#served.get(subscription_id), new BusError("subscription_not_found", "somebody has removed it"));
    }
  }

  #greet(line, { max_frame }, token) {
    const { agent, timeout } = this.#options;
    this.#maxFrame = max_frame;
    this.#call({ type: "hello", batch: true, agent, client: this.#instance, token }, timeout, line, (error) => {
      if (line !== this.#line) return;
      if (error) this.#end(error);
      else this.#open(line);
    });
  }

  /** First the subscriptions, so that they see what follows. */
  #open(line) {
    Object.assign(line, { ready: true, since: Date.now() });
    this.#reached = true;
    this.#become("connected");
    this.#subscriptions.forEach((sub) => this.#serve(sub));
    for (const question of this.#questions.values()) {
      if (question.line) continue;
      question.line = line;
      this.#send(question.text);
    }
    for (const entry of [...this.#outbox.values()]) {
      if (fits(entry.text, this.#maxFrame)) this.#send(entry.text);
      else this.#confirm(entry, tooLarge(this.#maxFrame));
    }
    this.#replies.splice(0).forEach((text) => this.#send(text));
    this.#wait(this.#options.heartbeatInterval, () => this.#beat(line));
    this.#first?.resolve();
  }

  /** A router from which something came is there. */
  #beat(line) {
    const { heard } = line;
    this.#call({ type: "ping" }, this.#options.timeout, line, () => {
      if (line !== this.#line) return;
      if (line.heard === heard) this.#lose("the router does not answer pings");
      else this.#wait(this.#options.heartbeatInterval, () => this.#beat(line));
    });
  }

  /** The connection is gone, or was not to be had: come again, unless the router does not want that. */
  #lose(reason, code = 0) {
    const { retry, reconnectInterval, maxReconnectInterval, reconnectDecay, token } = this.#options;
    const error = lossOf(this.#url, reason, code);
    const lasted = Date.now() - (this.#line?.since ?? Infinity) >= reconnectInterval * 1000;
    this.#hangUp(error);
    const renewed = code === OVER && typeof token === "function";
    if (!error.retryable && !renewed) return this.#end(error);
    if (!this.#reached && !retry) return this.#fail(error, "idle");
    if (lasted) this.#pause = reconnectInterval;
    this.#wait(this.#pause * Math.random(), () => this.#dial());
    this.#pause = Math.min(this.#pause * reconnectDecay, Math.max(reconnectInterval, maxReconnectInterval));
    this.#become("away", error);
  }

  #hangUp(error) {
    const line = this.#line;
    this.#line = null;
    clearTimeout(this.#timer);
    line?.socket?.close();
    this.#served.clear();
    this.#subscriptions.forEach((sub) => (sub.state = "wanted"));
    for (const question of [...this.#questions.values()]) if (question.line === line) question.done(error);
    this.#progress();
  }

  #end(error) {
    this.#ended = error;
    this.#hangUp(error);
    this.#fail(error, "closed");
    for (const sub of this.#subscriptions) {
      sub.over = true;
      if (!this.#closing) sub.ended(error);
    }
  }

  /** Nothing will be sent: tell everybody who waits for an answer. */
  #fail(error, state) {
    for (const question of [...this.#questions.values()]) question.done(error);
    for (const entry of [...this.#outbox.values()]) this.#confirm(entry, error);
    this.#first?.reject(error);
    this.#first = null;
    this.#become(state, error);
  }

  #become(state, error) {
    this.state = state;
    queueMicrotask(() => this.#options.onState(state, error)); // what it throws is its own
  }

  #wait(seconds, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, seconds * 1000);
  }

  // --- what is said -----------------------------------------------------------------------------------------------

  #check() {
    if (this.#ended) throw this.#ended;
    if (!this.#first) throw new BusError("closed", "call connect() first");
  }

  #send(text) {
    if (this.#line?.ready) this.#line.socket.send(text);
  }

  #ask(frame, seconds = this.#options.timeout) {
    return new Promise((resolve, reject) => {
      this.#check();
      const line = this.#line?.ready ? this.#line : null; // without one it waits for the next
      this.#call(frame, seconds, line, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  /** `answered(error, frame)` is called once: with the answer, as the connection that carried it ends, or in time. */
  #call(frame, seconds, line, answered) {
    const ref = `q${(this.#refs += 1)}`; // an event's is a number
    const text = encode({ ...frame, ref }, this.#maxFrame);
    const late = new BusError("request_timeout", `no answer to ${frame.type} within ${seconds} s`);
    const timer = setTimeout(() => done(late), seconds * 1000);
    const done = (error, answer) => {
      clearTimeout(timer);
      this.#questions.delete(ref);
      answered(error, answer);
    };
    this.#questions.set(ref, { text, line, done });
    line?.socket.send(text);
  }

  /** The router's word on an event. */
  #answered(frame) {
    const { type, ref, status, reason, message, event_id, position, duplicate = false } = frame;
    const entry = this.#outbox.get(ref);
    if (!entry) return type === "error" && this.#options.log.warn("wowevent: the router reports", errorOf(frame));
    if (status === "queued") return this.#confirm(entry, null, { event_id, position, duplicate });
    if (type === "error") return this.#confirm(entry, errorOf(frame));
    if (reason !== "closed") return this.#confirm(entry, new BusError(reason, message));
    const again = () => this.#outbox.has(ref) && this.#send(entry.text); // it is going away; if it stays after all
    setTimeout(again, this.#options.reconnectInterval * 1000);
  }

  #confirm(entry, error, receipt) {
    this.#outbox.delete(entry.ref);
    this.#size -= entry.text.length;
    if (error) entry.reject(error);
    else entry.resolve(receipt);
    this.#progress();
  }

  #reply({ event_id, correlation_id, reply_to }, answer) {
    if (!reply_to) return;
    const frame = { type: "reply", event: { event_id, correlation_id, reply_to } };
    let text;
    try {
      text = encode({ ...frame, ...answer }, this.#maxFrame);
    } catch (error) {
      text = encode({ ...frame, error: `the reply cannot be sent: ${error.message}` });
    }
    if (this.#line?.ready) this.#send(text);
    else if (this.#replies.push(text) > REPLIES) this.#replies.shift();
  }

  // --- subscriptions ----------------------------------------------------------------------------------------------

  #serve(sub) {
    const { timeout, reconnectInterval } = this.#options;
    const line = this.#line;
    if (!line?.ready || !this.#wants(sub) || sub.state !== "wanted" || 2 * sub.inbox.length > INBOX) return;
    sub.state = "asked";
    this.#call({ type: "subscribe", subscription: sub.wanted }, timeout, line, (error, answer) => {
      if (line !== this.#line) return sub.tell(this.#ended); // it is asked for again, if there is an again
      sub.state = "wanted";
      if (error?.code === "not_permitted" && sub.beginAnew()) return this.#serve(sub);
      if (error?.retryable && !sub.waiter) return setTimeout(() => this.#serve(sub), reconnectInterval * 1000);
      if (error) return this.#drop(sub, error);
      if (!this.#wants(sub)) return this.#giveBack(answer.subscription_id);
      this.#served.set(answer.subscription_id, sub);
      sub.serve(answer);
      sub.tell();
      this.#settle(sub);
    });
  }

  /** One that is about to go is served until what was handled of it is said. */
  #wants(sub) {
    return this.#subscriptions.has(sub) && (sub.named || !sub.over);
  }

  #giveBack(subscription_id) {
    this.#send(encode({ type: "unsubscribe", subscription_id }));
  }

  /** It is over, and not by our wish. */
  #drop(sub, error) {
    this.#forget(sub);
    if (!sub.tell(error)) sub.ended(error);
  }

  #forget(sub) {
    sub.over = true;
    sub.state = "wanted";
    this.#subscriptions.delete(sub);
    this.#served.delete(sub.id);
  }

  /** What runs of one with tokens is waited for: it must be acknowledged before. */
  async #leave(sub) {
    sub.over = true;
    if (sub.named) await this.#until(() => !sub.running && !sub.ready.size);
    const served = sub.state === "served";
    this.#forget(sub);
    if (!served) return;
    await this.#ask({ type: "unsubscribe", subscription_id: sub.id }).catch((error) => {
      if (error.code === "request_timeout") throw error; // else it forgets with the connection
    });
  }

  #take(item) {
    const sub = this.#served.get(item.subscription_id);
    if (!sub) return; // what is left to the router
    if (sub.take(item)) sub.inbox.push(item);
    this.#work(sub);
    this.#settle(sub);
    if (sub.named || sub.inbox.length < INBOX) return;
    this.#giveBack(sub.id); // until half of it is handled
    this.#served.delete(sub.id);
    sub.state = "wanted";
  }

  #work(sub) {
    while (sub.running < sub.concurrency && sub.inbox.length && !sub.over && !this.#closing) {
      sub.running += 1;
      this.#handle(sub, sub.inbox.shift());
    }
  }

  async #handle(sub, { event, token, position, attempt = 1, redelivered = false }) {
    /** @type {Record<string, any> | null} */
    let verdict = null;
    await null; // what came in the same frame is taken in first
    try {
      const value = await sub.handler(event, { position, attempt, redelivered });
      if (value !== undefined) this.#reply(event, { reply: value });
    } catch (error) {
      const { log } = this.#options;
      const { topic, event_id } = event;
      if (!token || !(error instanceof Nack)) log.error("wowevent: a handler failed", topic, event_id, error);
      if (!token) this.#reply(event, { error: String(error) }); // else the router tells, once there is no other attempt
      verdict = verdictOf(error);
    }
    sub.running -= 1;
    if (token) sub.settle(event.event_id, verdict);
    if (token && verdict?.pause) sub.inbox.splice(0).forEach(({ event }) => sub.settle(event.event_id, { release: true }));
    this.#settle(sub);
    this.#work(sub);
    this.#serve(sub);
    this.#progress();
  }

  /** Say what was handled, all in one frame, and what was not, each in its own; one frame at a time. */
  #settle(sub) {
    const { timeout, reconnectInterval } = this.#options;
    const line = this.#line;
    if (sub.state !== "served" || sub.saying || !sub.ready.size) return;
    const { tokens, verdict } = (sub.saying = sub.say());
    const frame = { type: verdict ? "nack" : "ack", ...verdict, subscription_id: sub.id, tokens };
    this.#call(frame, timeout, line, (error, answer) => {
      sub.saying = null;
      if (!error) sub.said(tokens, answer.stale);
      this.#progress();
      if (error && line === this.#line) setTimeout(() => this.#settle(sub), reconnectInterval * 1000);
      else this.#settle(sub);
    });
  }

  // --- waiting ----------------------------------------------------------------------------------------------------

  /** Until it is so, `timeout` at most. @returns {Promise<void>} */
  #until(so) {
    return new Promise((resolve) => {
      const look = () => so() && done();
      const timer = setTimeout(() => done(), this.#options.timeout * 1000);
      const done = () => {
        clearTimeout(timer);
        this.#looks.delete(look);
        resolve();
      };
      this.#looks.add(look);
      look();
    });
  }

  #progress() {
    this.#looks.forEach((look) => look());
  }
}

/**
 * What is known of one subscription; it does nothing by itself.
 *
 *   wanted ── asked ── served ── inbox full, or the connection broke ──> wanted
 *
 * A token is settled anew by each connection until the engine has that. So an event that was handled is not handled
 * again because its acknowledgement got lost, neither under its old token nor under a new one.
 */
class Subscription {
  state = "wanted";
  id = null; // the router's, in this connection
  over = false; // nothing more is begun
  /** @type {Deferred | null} */
  waiter = null; // who waits for the router's answer
  running = 0;
  inbox = [];
  saying = null; // what the router is told now
  ready = new Map(); // token -> what is to be told: the event's id, and the verdict, null for done
  #wanted;
  #hand = new Map(); // event id -> its newest token
  #handled = new Set(); // ids of events that may come again, and were handled
  #last; // position of the newest event

  constructor(handler, { concurrency = 1, lost, ended, ...wanted }) {
    this.named = wanted.name !== undefined || wanted.subscription !== undefined;
    this.handler = handler;
    this.concurrency = concurrency;
    this.lost = lost;
    this.ended = ended;
    this.#wanted = JSON.parse(encode(wanted)); // whatever becomes of what was given
    this.#last = wanted.after ? placeOf(wanted.after) : null;
  }

  get position() {
    return this.#last ? `${this.#last.epoch}-${this.#last.offset}` : undefined;
  }

  /** What to ask for: what follows the last event, or what is not in hand. */
  get wanted() {
    if (!this.named) return { ...this.#wanted, after: this.position };
    return { ...this.#wanted, held: [...this.#hand.values(), ...this.ready.keys()].slice(0, HELD) };
  }

  serve({ subscription_id, recovered, lost = null, position }) {
    const { epoch, offset } = placeOf(position);
    this.id = subscription_id;
    this.state = "served";
    if (!recovered) this.lost(lost);
    if (this.named) return;
    if (!this.#last) this.#last = { epoch, offset };
    else if (this.#last.epoch !== epoch) this.#last = { epoch, offset: 0n }; // another log: it comes from its beginning
  }

  /** A token may not hear what is past: go on from now. Not if the past was asked for. */
  beginAnew() {
    if (this.named || !this.#last || this.position === this.#wanted.after) return false;
    this.#last = null;
    this.lost(null);
    return true;
  }

  tell(error) {
    const { waiter } = this;
    this.waiter = null;
    if (error) waiter?.reject(error);
    else waiter?.resolve();
    return waiter !== null;
  }

  /** Whether an event that came is to be handled. */
  take({ event: { event_id }, position, token, redelivered }) {
    if (!token) return this.#pass(position);
    if (this.#handled.has(event_id) && !redelivered) {
      this.ready.set(token, { event_id, verdict: null });
      return false;
    }
    const fresh = !this.#hand.has(event_id);
    this.#hand.set(event_id, token);
    return fresh;
  }

  #pass(position) {
    const { epoch, offset } = placeOf(position);
    if (this.#last?.epoch === epoch && offset <= this.#last.offset) return false;
    this.#last = { epoch, offset };
    return true;
  }

  settle(event_id, verdict) {
    this.ready.set(this.#hand.get(event_id), { event_id, verdict });
    this.#hand.delete(event_id);
    if (!verdict) this.#handled.add(event_id);
  }

  say() {
    const [{ verdict }] = this.ready.values();
    const tokens = [...this.ready.keys()].filter((token) => this.ready.get(token).verdict === verdict);
    return { tokens: tokens.slice(0, TOKENS), verdict };
  }

  /** The engine has it. Of what came too late for it, it may hand out all again. */
  said(tokens, stale) {
    for (const token of tokens) {
      if (!stale) this.#handled.delete(this.ready.get(token).event_id);
      this.ready.delete(token);
    }
    for (const id of this.#handled) if (this.#handled.size > REMEMBERED) this.#handled.delete(id);
  }
}

function made(topic, payload, fields) {
  return { event_id: newId(), topic, timestamp: new Date().toISOString(), payload, ...fields };
}

/** A UUID of version 7: ids sort by time. Where a page comes by http, crypto has no randomUUID. */
function newId() {
  const time = Date.now().toString(16).padStart(12, "0");
  const random = Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0"));
  const text = `${time}7${random.join("").slice(1)}`;
  const variant = "89ab"[parseInt(text[16], 16) & 3];
  return `${text.slice(0, 16)}${variant}${text.slice(17)}`.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** A frame as text. What a router cannot read it can answer to nobody: so that is refused here. */
function encode(frame, most = Infinity) {
  const text = JSON.stringify(frame, (name, value) => {
    if (typeof value !== "number" || Number.isFinite(value)) return value;
    throw new BusError("invalid_event", `${name}: JSON has no ${value}`);
  });
  if (HALF.test(text)) throw new BusError("invalid_event", "half a character (a lone surrogate) is no text");
  if (isDeeper(frame, DEPTH)) throw new BusError("invalid_event", `nested deeper than ${DEPTH} levels`);
  if (!fits(text, most)) throw tooLarge(most);
  return text;
}

function isDeeper(value, levels) {
  if (typeof value !== "object" || value === null) return false;
  return !levels || Object.values(value).some((each) => isDeeper(each, levels - 1));
}

function fits(text, most) {
  return 3 * text.length <= most || new TextEncoder().encode(text).length <= most;
}

function tooLarge(most) {
  return new BusError("payload_too_large", `the router takes frames of ${most} bytes at most`);
}

function errorOf({ error, message, retry_after }) {
  return new BusError(error, message, retry_after);
}

/** A browser does not say why a handshake was refused: 1006 is all that it tells. */
function lossOf(url, reason, code) {
  const final = code === REFUSED || (code >= 4500 && code < 5000);
  const kind = code === UNKNOWN || code === OVER ? "unauthenticated" : final ? "not_permitted" : "broker_unavailable";
  const why = reason || (code === 1006 ? "cannot be reached, or does not let this page in" : "the connection ended");
  return new BusError(kind, `${url}: ${why}${code ? ` (${code})` : ""}`);
}

function verdictOf(error) {
  if (error instanceof Nack) return { ...error.verdict, error: error.verdict.error?.slice(0, 2_000) };
  return { error: String(error).slice(0, 2_000), traceback: String(error?.stack ?? "").slice(-8_000) };
}

/** An offset may be larger than a number is exact. */
function placeOf(position) {
  const dash = position.lastIndexOf("-");
  return { epoch: position.slice(0, dash), offset: BigInt(position.slice(dash + 1)) };
}

function given(settings) {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
}

function every(items, so) {
  return [...items].every(so);
}

/** @returns {Deferred} */
function deferred() {
  /** @type {any} */
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
