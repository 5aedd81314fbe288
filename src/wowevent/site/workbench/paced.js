// Asking again, less often where an answer is much work: to group letters, the service looks through all of them.

import { useData, useEffect, useState } from "../kit.js";

const OFTEN = 3_000; // milliseconds
const SELDOM = 30_000;
const MUCH = 1_000; // dead letters

/**
 * As `useData`.
 * @param {string} path
 * @param {object} how
 * @param {(data: any) => number} size How many letters an answer is about.
 */
export function usePaced(path, how, size) {
  const [every, setEvery] = useState(OFTEN);
  const found = useData(path, { ...how, every });
  const next = found.data && size(found.data) > MUCH ? SELDOM : OFTEN;
  useEffect(() => setEvery(next), [next]);
  return found;
}

/** @param {{groups: {count: number}[]}} data */
export const lettersIn = ({ groups }) => groups.reduce((sum, group) => sum + group.count, 0);
