// How a subscription does, in a word and in a sentence.

import { many, span } from "./words.js";

const BEHIND = 60; // seconds for which an event may wait before somebody should look

/**
 * @param {Record<string, any>} its As GET /subscriptions shows it.
 * @returns {{tone: string, word: string, why: string, look: boolean}} `look`: somebody should.
 */
export function standing(its) {
  const waiting = (its.ready ?? 0) + (its.delayed ?? 0);
  if (its.lost) return { tone: "bad", word: "lost events", why: `${many(its.lost, "event")} were dropped before they were read.`, look: true };
  if (its.lapsed) return { tone: "bad", word: "lapsed", why: "Nobody served it for too long: nothing is kept for it until somebody does.", look: true };
  if (its.paused) return { tone: "warn", word: "paused", why: `Nobody is given its events. ${many(waiting, "event")} wait.`, look: waiting > 0 };
  if (!its.durable) return { tone: "", word: "live", why: "It is there as long as its process, and nothing is kept for it.", look: false };
  if (its.consumers === 0 && waiting > 0) return { tone: "bad", word: "not served", why: `${many(waiting, "event")} wait, and no process takes them.`, look: true };
  if (its.consumers === 0) return { tone: "", word: "away", why: "No process serves it now; what comes is kept.", look: false };
  if ((its.ready ?? 0) > 0 && its.oldest > BEHIND) return { tone: "warn", word: "behind", why: `The oldest of ${many(its.ready, "event")} has waited for ${span(its.oldest)}.`, look: true };
  return { tone: "good", word: "served", why: `By ${many(its.consumers, "process", "processes")}.`, look: false };
}
