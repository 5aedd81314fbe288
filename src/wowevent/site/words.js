// Numbers, times and ids as people read them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTH = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const DAY = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });
const CLOCK = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const FULL = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" });
const NOT_KNOWN = "–";

/** `12,345`, and a dash for what is not known. */
export const number = (value) => (value === null || value === undefined ? NOT_KNOWN : WHOLE.format(value));

/** `12.3K`: where there is little room. */
export const compact = (value) => (value === null || value === undefined ? NOT_KNOWN : value < 10_000 ? WHOLE.format(value) : SHORT.format(value));

/** So many a second: a digit behind the point below ten. */
export const rate = (value) => (value === null || value === undefined ? NOT_KNOWN : value > 0 && value < 10 ? TENTH.format(value) : compact(value));

/** `12%`, of a fraction: little is not nothing. */
export const share = (fraction) => (fraction > 0 && fraction < 0.01 ? "<1%" : `${WHOLE.format(100 * fraction)}%`);

/** `3 events`, `1 event`. */
export const many = (count, one, more = `${one}s`) => `${number(count)} ${count === 1 ? one : more}`;

/** How long: `850 µs`, `12 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NOT_KNOWN;
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${seconds < 0.01 ? TENTH.format(seconds * 1000) : Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds < 10 ? TENTH.format(seconds) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** A moment in Unix seconds, or as ISO 8601, as a Date. */
export const moment = (at) => new Date(typeof at === "number" ? at * 1000 : at);

/** `18:15:20`, with the day in front where it is another one. */
export function clock(at) {
  const then = moment(at);
  const time = CLOCK.format(then);
  return then.toDateString() === new Date().toDateString() ? time : `${DAY.format(then)}, ${time}`;
}

/** The moment in full, for a title. */
export const full = (at) => FULL.format(moment(at));

/** `5 min ago`, `in 3 s`. */
export function ago(at, now = Date.now()) {
  const seconds = (now - moment(at).getTime()) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${span(Math.round(seconds))} ago` : `in ${span(Math.round(-seconds))}`;
}

/** The end of an id, by which people tell them apart: ids of one moment begin the same. */
export const short = (id) => (id.length > 14 ? `…${id.slice(-8)}` : id);
