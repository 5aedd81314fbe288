// JSON as people compare and correct it: numbers as they were written, a path for each value, what differs. Pure.

const NAME = /^[A-Za-z_$][\w$-]*$/; // a key that needs no quotes in a path

/**
 * As `JSON.parse`, but a number that JavaScript would write otherwise (2**53 + 1, 1.0) stays as it is, and goes out again as it came.
 * @param {string} text
 * @throws {SyntaxError}
 */
export function exact(text) {
  const { rawJSON } = JSON;
  if (!rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_, value, { source }) => (typeof value === "number" && String(value) !== source ? rawJSON(source) : value));
}

/** Whether this browser would send a value back as it came: one without `JSON.rawJSON` rounds what is beyond 2**53. */
export const keepsNumbers = (value) =>
  Boolean(JSON.rawJSON) || leaves(value).every(([, each]) => typeof each !== "number" || Math.abs(each) <= Number.MAX_SAFE_INTEGER);

/** A value as it is written in JSON; `undefined` is nothing. */
export const written = (value, indent) => (value === undefined ? "" : JSON.stringify(value, null, indent));

/**
 * Each value that holds no others, with its path: `[["customer.name", "Ann"], ["items[0].n", 1]]`.
 * @param {unknown} value
 * @returns {[string, unknown][]}
 */
export function leaves(value, path = "") {
  const parts = inside(value, path);
  return parts.length ? parts.flatMap(([below, each]) => leaves(each, below)) : [[path, value]];
}

function inside(value, path) {
  if (value === null || typeof value !== "object" || JSON.isRawJSON?.(value)) return [];
  if (Array.isArray(value)) return value.map((each, index) => [`${path}[${index}]`, each]);
  return Object.entries(value).map(([key, each]) => [step(path, key), each]);
}

const step = (path, key) => {
  if (!NAME.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path ? `${path}.${key}` : key;
};

/** The last word of a path, which is what errors name: `sum` of `bill.sum`. */
export const lastWord = (path) => path.match(/([^.[\]"]+)"?\]?$/)?.[1] ?? path;

/**
 * What was changed, a line for each path: in the order of `before`, then what is new.
 * @returns {{path: string, kind: "added" | "removed" | "changed", before: string, after: string}[]}
 */
export function changes(before, after) {
  const rows = sideBySide([before, after]).filter((row) => row.differs);
  return rows.map(({ path, values: [old, now] }) => ({
    path: path || "the whole payload",
    kind: old === "" ? "added" : now === "" ? "removed" : "changed",
    before: old,
    after: now,
  }));
}

/**
 * Several values beside each other: a row for each path that one of them has.
 * @param {unknown[]} values
 * @returns {{path: string, values: string[], differs: boolean}[]} What one of them lacks is "".
 */
export function sideBySide(values) {
  const columns = values.map((value) => new Map(leaves(value).map(([path, each]) => [path, written(each)])));
  const paths = new Set(columns.flatMap((column) => [...column.keys()]));
  return [...paths].map((path) => {
    const row = columns.map((column) => column.get(path) ?? "");
    return { path, values: row, differs: row.some((each) => each !== row[0]) };
  });
}
