// A chart of what happened over the last minutes: uPlot in the colours of the page, with a legend that says the numbers.

import uPlot from "./vendor/uplot.js";
import { html, useEffect, useRef } from "./kit.js";

const HEIGHT = 210; // CSS pixels
const SPAN = 600; // seconds that are shown at most: ten minutes,
const LEAST = 60; // and at least
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7]; // steps of an axis of counts

/**
 * Lines over time.
 * @param {object} its
 * @param {string} its.label What is shown, for who does not see it.
 * @param {number[]} its.times Unix seconds, ascending.
 * @param {{name: string, tone: string, values: (number | null)[]}[]} its.lines `tone` is accent, good, warn or bad.
 * @param {(value: number | null) => string} its.show A value as the legend and the axis have it.
 * @param {boolean} [its.whole] The values are counts.
 */
export function Chart({ label, times, lines, show, whole = false }) {
  const box = useRef(null);
  const legend = useRef(null);
  const plot = useRef(null);
  const latest = useRef(null);
  latest.current = [times, ...lines.map((line) => line.values)];

  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current, legend.current, { lines, show, whole }), latest.current, box.current);
    };
    draw();
    const fit = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    fit.observe(box.current);
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", draw);
    addEventListener("theme", draw);
    return () => {
      fit.disconnect();
      system.removeEventListener("change", draw);
      removeEventListener("theme", draw);
      plot.current.destroy();
    };
  }, []);

  useEffect(() => {
    plot.current.setData(latest.current);
  }, [times]);

  const now = lines.map((line) => `${line.name} ${show(line.values.at(-1) ?? null)}`).join(", ");
  return html`
    <figure class="chart">
      <div ref=${box} role="img" aria-label=${`${label}. Now: ${now}`}></div>
      <figcaption ref=${legend}>
        ${lines.map((line) => html`<span key=${line.name} class=${line.tone}><i></i>${line.name} <b>${show(line.values.at(-1) ?? null)}</b></span>`)}
      </figcaption>
    </figure>
  `;
}

/** Colours are those that the legend has: a canvas knows no style sheet. */
function options(box, legend, { lines, show, whole }) {
  const colours = [...legend.querySelectorAll("i")].map((each) => getComputedStyle(each).backgroundColor);
  const style = getComputedStyle(legend);
  const axis = { stroke: style.color, font: "12px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: style.borderTopColor, width: 1 } };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    padding: [12, 8, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 7 } },
    scales: {
      x: { range: (_plot, first, last) => [Math.max(last - SPAN, Math.min(first, last - LEAST)), last] },
      y: { range: (_plot, _low, high) => [0, Math.max(whole ? 4 : 0, high * 1.15) || 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 34, space: 90, values: (_plot, splits) => splits.map((at) => hour(at)) },
      { ...axis, size: 54, space: 44, ...(whole ? { incrs: WHOLE } : {}), values: (_plot, splits) => splits.map(show) },
    ],
    series: [{}, ...lines.map((line, index) => ({ label: line.name, stroke: colours[index], width: 1.75, fill: index === 0 ? faint(colours[0]) : undefined, points: { show: false } }))],
  };
}

const hour = (at) => new Date(at * 1000).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const faint = (colour) => colour.replace(/^rgb\(([^)]+)\)$/, "rgba($1, 0.08)");
