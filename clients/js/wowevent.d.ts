/** WowEvent's client for browsers; see README.md. Times are seconds. */

/** An event as it travels; docs/websocket.md. */
export interface Event<Payload = Record<string, unknown>> {
  event_id: string;
  topic: string;
  event_type: string;
  source_agent: string;
  timestamp: string;
  /** 1 (last) to 10 (first). */
  priority: number;
  correlation_id: string;
  payload: Payload;
  target_agent?: string | null;
  trace_id?: string | null;
  source_service?: string;
  parent_event_id?: string;
  traceparent?: string;
  execution_id?: string;
  ttl_seconds?: number;
  not_before?: string;
  max_retries?: number;
  reply_to?: string;
  hops?: number;
  replay_of?: string;
  headers?: Record<string, string>;
  [unknown: string]: unknown;
}

/** What may be said of an event beside its topic and payload; what is left out the router fills in. */
export interface Fields {
  /** The same in each attempt to publish the same event: it is stored once. */
  event_id?: string;
  event_type?: string;
  /** 1 to 10, or "lowest", "low", "normal", "high", "critical", "system". */
  priority?: number | string;
  /** Delivered to this agent alone. */
  target_agent?: string | null;
  source_service?: string;
  timestamp?: string;
  correlation_id?: string;
  parent_event_id?: string;
  trace_id?: string | null;
  traceparent?: string;
  execution_id?: string;
  ttl_seconds?: number;
  not_before?: string;
  max_retries?: number;
  hops?: number;
  headers?: Record<string, string>;
  [unknown: string]: unknown;
}

export interface Receipt {
  event_id: string;
  /** Where it lies in the log, if the engine's receipts say it. */
  position?: string;
  /** Its id was stored before; nothing was added. */
  duplicate: boolean;
}

export interface Delivery {
  /** Where the event lies in the log: `after` of a later subscription. */
  position?: string;
  /** 1 for the first. */
  attempt: number;
  /** It was sent again from the dead letters. */
  redelivered: boolean;
}

/** Fields of a `nack` frame; `error` says why. */
export interface Verdict {
  error?: string;
  /** Come again after so many seconds; charges no attempt. */
  retry_after?: number;
  /** To the dead letters now. */
  reject?: boolean;
  /** Given back as it was. */
  release?: boolean;
  /** Given back as it was, and nothing of the subscription comes to anybody for so many seconds. */
  pause?: number;
}

/** Called with each event, one after the other. What it returns answers a request, and acknowledges. */
export type Handler<Payload = Record<string, unknown>> = (event: Event<Payload>, delivery: Delivery) => unknown;

/** What is wanted, in the words of a `subscribe` frame, and who is told. */
export interface Wanted {
  types?: string[];
  priorities?: (number | string)[];
  min_priority?: number | string;
  sources?: string[];
  /** Without a name: go on behind this position. */
  after?: string;
  /** An agent's name: remembered, and shared by all that use it. */
  name?: string;
  /** An identity of its own, instead. */
  subscription?: string;
  /** Where a new one with a name begins: "new", "first", a time or a position. */
  start?: string;
  lease?: number;
  max_retries?: number;
  /** The most that wait here for their acknowledgement; 64. */
  credit?: number;
  /** Calls of the handler at a time; 1. */
  concurrency?: number;
  /** Events are missing: so many, or null where nobody knows. The console is warned unless it is given. */
  lost?: (count: number | null) => void;
  /** The subscription is over, and not by our wish: removed by somebody, or the router wants us no more. */
  ended?: (error: BusError) => void;
}

export interface Subscription {
  /**
   * End it; fulfilled when the router has. A handler that runs for a name is waited for, so it must not await this.
   * What the bus remembers of a name stays.
   */
  unsubscribe(): Promise<void>;
  /** Without a name: that of the newest event that came. */
  readonly position: string | undefined;
}

/**
 * `idle` ── connect() ── `connecting` ── `connected` ── it broke ── `away` ── `connecting` …
 * and `closed`, by us, or by a router that does not want us to come back.
 */
export type State = "idle" | "connecting" | "connected" | "away" | "closed";

export interface Options {
  /** Who this is: the source of what is published, and gets what is targeted to it. By a token, the token's. */
  agent?: string;
  /** Said in the first frame, never in the URL. A function is asked at each connection: where tokens are short. */
  token?: string | (() => string | Promise<string>);
  /** Try the first connection again and again, too. */
  retry?: boolean;
  /** Seconds before the first attempt to come back, a random part of them; 1. */
  reconnectInterval?: number;
  /** And at most; 30. */
  maxReconnectInterval?: number;
  /** By what they grow with each attempt; 1.5. */
  reconnectDecay?: number;
  /** Seconds between pings; 30. */
  heartbeatInterval?: number;
  /** Seconds for an answer, for a connection, and for `close`; 10. */
  timeout?: number;
  /** Events that may wait for their confirmation; 10,000. */
  maxOutbox?: number;
  /** And characters of their JSON; 16 Mi. */
  maxOutboxSize?: number;
  /** Told of each change, with the reason for "away", "closed" and for "idle" after a first attempt that failed. */
  onState?: (state: State, error?: BusError) => void;
  /** Where handlers that fail and gaps are written; `console`. */
  log?: Pick<Console, "warn" | "error">;
  /** For where there is none: Node.js before 22 with the package `ws`. */
  WebSocket?: unknown;
}

/** A client that is connected; rejected as `Client.connect` is. */
export function connect(url: string, options?: Options): Promise<Client>;

/**
 * One agent's connection to a router; it survives the connection's breaks.
 *
 * What is published meanwhile waits, in its order; subscriptions go on where they were. Close codes 1008 and 4500 to
 * 4999 end it for good; 4502 (the token has expired) does not where `token` is a function.
 */
export class Client {
  constructor(url: string, options?: Options);
  readonly state: State;

  /**
   * Fulfilled once connected. Rejected with `broker_unavailable` if the first attempt fails (without `retry`), which
   * leaves nothing running; with `unauthenticated` or `not_permitted` if the router refuses us.
   */
  connect(): Promise<void>;

  /**
   * Goodbye, for good. Running handlers end, what they did is settled, what was published is confirmed, within
   * `timeout`; a publish that was not is rejected with `closed`. A handler must not await it.
   */
  close(): Promise<void>;

  /**
   * Fulfilled once the router has stored the event, however long it is away until then. Rejected with what it refuses
   * the event with; with `outbox_full` and `invalid_event` before anything is taken. After `closed` the event may be
   * stored or not: publish it again with the same `event_id`.
   */
  publish(topic: string, payload?: object, fields?: Fields): Promise<Receipt>;

  /** What the handler of this event returned; else `no_responders`, `request_failed`, `request_timeout`. */
  request<Reply = unknown>(topic: string, payload?: object, fields?: Fields & { timeout?: number }): Promise<Reply>;

  /**
   * Call `handler` with what matches. Fulfilled once the router serves it, so that what is published then is seen;
   * before `connect` and while away it is noted. Rejected with what the router refuses it with.
   *
   * Without a name it is live, and each event comes once. With a `name` or a `subscription` it is remembered; an event
   * is acknowledged when the handler returns, and is tried again when it throws.
   */
  subscribe<Payload = Record<string, unknown>>(
    topics: string | string[],
    handler: Handler<Payload>,
    wanted?: Wanted,
  ): Promise<Subscription>;

  /** How the router is. */
  health(): Promise<Record<string, unknown>>;
}

/** What goes wrong. */
export class BusError extends Error {
  constructor(code: string, message: string, retryAfter?: number);
  /** Stable: `broker_unavailable`, `invalid_topic`, `not_permitted`, …; docs/websocket.md. */
  readonly code: string;
  /** Whether the same can succeed later. */
  readonly retryable: boolean;
  /** Seconds, of `rate_limited`. */
  readonly retryAfter?: number;
}

/** Thrown by a handler of a name that wants another verdict than a failed attempt. */
export class Nack extends Error {
  constructor(verdict: Verdict);
  readonly verdict: Verdict;
}

/** The fields of what follows from an event: its conversation, and the way that the bus stops circles by. */
export function following(event: Event<any>): Fields;
