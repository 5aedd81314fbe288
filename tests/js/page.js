/** What every page under test has: the client, and where it writes down what happened. */

import * as wowevent from "./wowevent.js";

const PATIENCE = 10_000; // milliseconds

async function until(look) {
  const late = Date.now() + PATIENCE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > late) throw new Error(`it is not so: ${look}; ${JSON.stringify({ states, seen: seen.length })}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The code of what an action is rejected with, or its name. */
async function codeOf(action) {
  try {
    return `fulfilled: ${JSON.stringify(await action())}`;
  } catch (error) {
    return error.code ?? error.name;
  }
}

/** A client that writes down its states, with short waits; not connected. */
function make(url, options = {}) {
  const onState = (state, error) => {
    states.push(state);
    if (error) errors.push(error);
  };
  const log = { warn: (...said) => logged.push(said.join(" ")), error: (...said) => logged.push(said.join(" ")) };
  window.client = new wowevent.Client(url, { reconnectInterval: 0.05, timeout: 2, onState, log, ...options });
  return window.client;
}

async function open(url, options) {
  await make(url, options).connect();
}

const [seen, deliveries, states, errors, logged, gaps, ends] = [[], [], [], [], [], [], []];

function keep(event, delivery) {
  seen.push(event);
  deliveries.push(delivery);
}

const told = { lost: (count) => gaps.push(count), ended: (error) => ends.push(error.code) };

Object.assign(window, wowevent, { until, codeOf, make, open, keep, told });
Object.assign(window, { seen, deliveries, states, errors, logged, gaps, ends, ready: true });
