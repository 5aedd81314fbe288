// A conversation from one of its events on again: the dead letters at and below it, or else that event as a new one.

import { html } from "../kit.js";
import { ask } from "../ask.js";
import { post } from "../api.js";
import { redeliver } from "./sending.js";

/** The dead letters of a step and of all that it caused: what follows it and stands deeper. */
export function lettersFrom(steps, index) {
  const rest = steps.slice(index + 1);
  const end = rest.findIndex((step) => step.depth <= steps[index].depth);
  const below = end < 0 ? rest : rest.slice(0, end);
  return [steps[index], ...below].flatMap((step) => step.failures.map((failure) => failure.id));
}

/**
 * Ask, and do it.
 * @param {object[]} steps Of the conversation.
 * @param {number} index Of the one from which on.
 */
export function again(steps, index) {
  const ids = lettersFrom(steps, index);
  return ids.length ? redeliver({ ids }) : replay(steps[index]);
}

const replay = (step) =>
  ask({
    title: "Publish it again?",
    says: ({ topic }) => html`
      <p>Nothing at or below ${step.topic} is a dead letter, so there is nothing to redeliver. <b>The event will be published again as a new one, on ${topic}.</b></p>
      <p>All who subscribe to that topic get it, those who handled it well the first time, too. It says by <code>replay_of</code> which event it repeats.</p>
    `,
    fields: [{ name: "topic", label: "Topic", value: step.topic, mono: true, required: true, hint: "Another one, such as sandbox.…, keeps it from those who handle this one." }],
    verb: "Publish again",
    run: ({ topic }) => post("/replays", { topic, event_ids: [step.event_id] }),
    done: () => "The event is published again.",
  });
