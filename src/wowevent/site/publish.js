// The question that publishes an event.

import { ask } from "./ask.js";
import { Problem, post } from "./api.js";

/** Ask for an event and publish it; what is given fills the form. */
export function publish({ topic = "", type = "", payload = {} } = {}) {
  return ask({
    title: "Publish an event",
    says: "Every subscription that matches its topic gets it.",
    verb: "Publish",
    wide: true,
    fields: [
      { name: "topic", label: "Topic", value: topic, required: true, mono: true, placeholder: "order.placed" },
      { name: "type", label: "Type", value: type, mono: true, placeholder: "as the topic", hint: "What happened. Without one it is named as its topic." },
      { name: "payload", label: "Payload, a JSON object", type: "textarea", value: JSON.stringify(payload, null, 2), mono: true },
    ],
    run: async ({ topic: where, type: what, payload: text }) => {
      const event = { topic: where.trim(), ...(what.trim() ? { type: what.trim() } : {}), payload: parsed(text) };
      return (await post("/events", event)).receipts[0];
    },
    done: (receipt) => (receipt.matched ? `Published. It goes to ${receipt.matched} of the subscriptions.` : "Published. No subscription matches it: it is in the log alone."),
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Problem(0, "invalid_event", `The payload is no JSON: ${error.message}`);
  }
}
