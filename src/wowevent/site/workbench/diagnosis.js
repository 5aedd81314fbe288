// What an error says to who did not write the handler: where it broke, what it names, what helps. Pure.

import { lastWord, leaves } from "../json.js";

const FRAME = /^ *File "(.+)", line (\d+), in (.+)$/;
const FOREIGN = /site-packages|dist-packages|\/lib\/python|<frozen|[\\/]wowevent[\\/]/; // code that is not the agent's own
const MARKS = /^[\s^~]+$/;

const HEADLINE = 160; // characters of an error

/** The reasons in a word or two. */
export const REASONS = {
  handler_error: "handler error",
  timeout: "timeout",
  validation_error: "does not fit its schema",
  subscriber_unavailable: "nobody there",
  deserialization_error: "unreadable",
  unknown: "unknown",
  rejected: "rejected",
  crashed: "crashed its process",
  loop_detected: "storm",
};

const MEANING = {
  handler_error: "The handler raised an error on every attempt. Correct the handler, or correct the payload, then send again; before that it fails again.",
  timeout: "The handler took longer than its timeout on every attempt. Look at what it waits for, then redeliver.",
  validation_error: "The payload does not fit its schema or payload model. Correct the payload and resend it, or correct the schema and redeliver.",
  subscriber_unavailable: "Nobody was there to handle it. See on the page Agents that it is served, then redeliver.",
  deserialization_error: "The event could not be read. Its publisher has to publish it again, rightly.",
  unknown: "No reason was given. The error and the traceback are all there is.",
  rejected: "The handler itself said that it will never succeed. Correct the payload and resend it; redeliver only if that is true no more.",
  crashed: "The process that handled it died each time. Find out why (memory, a native library) before you redeliver: it will kill the process again.",
  loop_detected: "The conversation went too far: agents answer each other without end. Stop what loops first, then release it on the page Conversations; redelivering starts it again.",
};

/** What a reason means, and what helps. */
export const meaning = (reason) => MEANING[reason] ?? MEANING.unknown;

/**
 * Where it broke: the last line of a Python traceback that is the agent's own code, else the last one at all.
 * @param {string} traceback
 * @returns {{file: string, line: string, name: string, code: string} | null}
 */
export function place(traceback) {
  const lines = traceback.split("\n");
  const frames = lines.flatMap((text, index) => {
    const found = text.match(FRAME);
    return found ? [{ file: found[1], line: found[2], name: found[3], code: codeAfter(lines, index) }] : [];
  });
  return frames.findLast((frame) => !FOREIGN.test(frame.file)) ?? frames.at(-1) ?? null;
}

function codeAfter(lines, index) {
  const next = lines[index + 1] ?? "";
  return FRAME.test(next) || MARKS.test(next) ? "" : next.trim();
}

/** An error in a line. */
export function headline(error) {
  const line = error.trim().split("\n", 1)[0] || "No error was given";
  return line.length > HEADLINE ? `${line.slice(0, HEADLINE)}…` : line;
}

/** The words in quotes of an error: `sum` of `KeyError: 'sum'`. */
export const named = (error) => [...new Set([...error.matchAll(/'([^'\n]{1,80})'|"([^"\n]{1,80})"/g)].map((found) => found[1] ?? found[2]))];

/**
 * What of the payloads an error is about: for each word that it quotes, how many of those that failed have a field of that name,
 * and one that was handled and has it.
 * @param {string} error
 * @param {unknown[]} failed Payloads of dead letters.
 * @param {unknown[]} handled Payloads of events that are none.
 * @returns {{field: string, have: number, of: number, example: [string, unknown] | null}[]} Only fields that one of all these has, or that a KeyError names.
 */
export function clues(error, failed, handled) {
  const wanted = error.includes("KeyError");
  return named(error).flatMap((field) => {
    const has = (payload) => leaves(payload).find(([path]) => path.split(/[.[]/).includes(field) || lastWord(path) === field);
    const have = failed.filter(has).length;
    const example = handled.map(has).find(Boolean) ?? null;
    return have || example || wanted ? [{ field, have, of: failed.length, example }] : [];
  });
}
