// What the pages use of uplot.js, in types. Ours: those that it comes with are forty times as long.

/** A chart in `box`. `data` is the times and, as long as these, the values of each line; null is a gap. */
export default class uPlot {
  constructor(options: object, data: (number | null)[][], box: HTMLElement);
  setData(data: (number | null)[][]): void;
  setSize(size: { width: number; height: number }): void;
  destroy(): void;
}
