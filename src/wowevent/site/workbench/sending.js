// Dead letters sent again, or forgotten: each time the service counts first, and the dialog says so.

import { html } from "../kit.js";
import { ask } from "../ask.js";
import { post } from "../api.js";
import { many } from "../words.js";

/** Which dead letters are meant, as the service takes it: `{ids}`, or filters such as `{fingerprint}`. @typedef {object} Meant */

/**
 * Hand them to their subscriptions again.
 * @param {Meant} meant
 * @returns {Promise<any>} What the service answered; undefined if it was not done.
 */
export const redeliver = (meant) =>
  ask({
    title: "Redeliver?",
    says: once(async () => {
      const counted = await post("/dead-letters/redeliver", { ...meant, dry_run: true });
      return html`
        <p class="counted"><b>${told(counted, "redelivered", "to")}</b></p>
        <p>Nobody else gets them. They begin with fresh attempts; those that fail again come back to this list.</p>
      `;
    }),
    fields: [
      {
        name: "rate", label: "At most so many a second", type: "number", min: "0.1", max: "10000", step: "any", placeholder: "all at once",
        hint: "Leave it empty for a few. For many, a rate spares what the agent depends on.",
      },
    ],
    verb: "Redeliver",
    run: ({ rate }) => post("/dead-letters/redeliver", { ...meant, ...(rate ? { rate: Number(rate) } : {}) }),
    done: (answer) =>
      answer.id ? `Begun: ${many(answer.total, "dead letter")} at ${answer.rate} a second.` : `${many(answer.redelivered, "dead letter")} redelivered.`,
  });

/**
 * Forget them.
 * @param {Meant} meant
 */
export const discard = (meant) =>
  ask({
    title: "Discard?",
    says: once(async () => {
      const counted = await post("/dead-letters/discard", { ...meant, dry_run: true });
      return html`
        <p class="counted"><b>${told(counted, "discarded", "of")}</b></p>
        <p>They will not be handled, and this cannot be undone. The events themselves stay in the history as long as the log keeps them.</p>
      `;
    }),
    verb: "Discard",
    danger: true,
    run: () => post("/dead-letters/discard", meant),
    done: (answer) => `${many(answer.discarded, "dead letter")} discarded.`,
  });

/** `3 will be redelivered to billing~order.*`, with a part for each where there are several. */
export function told({ count, by_subscription: parts }, what, word) {
  const names = Object.entries(parts);
  if (count === 0) return `None is left to be ${what}.`;
  if (names.length === 1) return `${count} will be ${what} ${word} ${names[0][0]}.`;
  return `${count} will be ${what}: ${names.map(([name, each]) => `${each} ${word} ${name}`).join(", ")}.`;
}

/** The same answer each time: a dialog asks again when one of its fields changes. */
function once(look) {
  let found = null;
  return () => (found ??= look());
}
