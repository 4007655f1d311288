// Line charts by plotly, which the server sends from its installed package once a page needs it.
import { clear, figure, h, keepFocus } from "./lib.js";

let loading;
export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/vendor/plotly.js" });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = undefined; reject(new Error("The chart library could not be loaded.")); };
    document.head.append(script);
  });
  return loading;
}

// A chart's element, without what the library keeps of it.
export function emptied(chart) {
  window.Plotly?.purge(chart);
  delete chart.dataset.listens;
  if (chart.legend) chart.legend.hidden = true;
  return chart;
}

// Colour-blind safe, in a fixed order (Okabe and Ito), some darkened: at least 3:1 on the panels of both themes.
export const SERIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#2f9bd0", "#7d5ba6", "#6b6b6b"];
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function smooth(values, strength) {
  if (!strength) return values;
  let mean = null;
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    mean = mean === null ? value : strength * mean + (1 - strength) * value;
    return mean;
  });
}

// Ticks of a logarithmic axis: the fewer decades there are, the more of them in each.
function ticks(row) {
  const values = row.traces.flatMap((trace) => trace.y.filter((value) => value > 0));
  let [low, high] = [Math.min(...values), Math.max(...values)].map(Math.log10);
  const isNarrow = values.length > 0 && high - low < 0.3; // one point, say: then the axis spans a factor of two about it
  if (isNarrow) [low, high] = [(low + high) / 2 - 0.16, (low + high) / 2 + 0.16];
  const digits = high - low > 2 ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7];
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) found.push(...digits.map((digit) => Number(`${digit}e${power}`)));
  return { tickvals: found, ticktext: found.map(String), ...(isNarrow ? { range: [low, high] } : {}) };
}
const dashOf = (trace) => (trace.dash && trace.dash !== "solid" ? "- -" : "\u2014");
// Names beside the title, each after a dash in its colour, where there are several.
const legend = (row) => (row.traces.length < 2 ? [] : row.traces.map((trace) => `<span style="color:${trace.color}">${dashOf(trace)}</span> ${trace.name.replace(/[<>&]/g, "")}`));
const LETTER_PX = 6.5; // of a title, at most

// Names above all charts, where those of one have no room beside its title.
function drawLegend(element, rows) {
  const widest = Math.max(...rows.map((row) => row.title.length + (row.traces.length > 1 ? row.traces.reduce((sum, { name }) => sum + name.length + 5, 0) : 0)));
  const isShown = widest * LETTER_PX > element.clientWidth - 52;
  if (!element.legend) {
    element.legend = h("div", { class: "row small" });
    element.before(element.legend);
  }
  const unlike = new Map(rows.flatMap(({ traces }) => (traces.length > 1 ? traces : [])).reverse().map((trace) => [`${trace.color} ${dashOf(trace)}`, trace])); // of lines that look alike, the first
  element.legend.hidden = !isShown;
  clear(element.legend, isShown && [...unlike.values()].reverse().map((trace) => h("span", {}, h("span", { style: { color: trace.color } }, dashOf(trace)), ` ${trace.name}`)));
  return isShown;
}

// rows: [{title, log?, traces: [{name, x, y, color, dash, mode}]}], one chart below the other on one axis.
export async function draw(element, rows, { cursor = null, marks = [], onHover, onClick, length, axis = "images seen" } = {}) {
  const Plotly = await plotly();
  if (!element.isConnected) return; // its page was left meanwhile
  const [text, muted, line, surface] = ["text", "muted", "line", "surface"].map(color);
  const isAbove = drawLegend(element, rows);
  const gap = 0.045;
  const height = (1 - gap * (rows.length - 1)) / rows.length;
  const traces = [];
  const layout = {
    height: 74 + 118 * rows.length, margin: { l: 44, r: 8, t: 18, b: 42 }, showlegend: false, hovermode: "x unified", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: "system-ui, sans-serif", size: 11, color: muted },
    hoverlabel: { bgcolor: surface, bordercolor: line, font: { color: text, size: 11 } },
    xaxis: { gridcolor: line, zeroline: false, anchor: `y${rows.length === 1 ? "" : rows.length}`, range: length ? [0, length] : undefined, tickformat: "~s", hoverformat: ",.0f", ticksuffix: "", title: { text: axis, standoff: 6, font: { color: muted, size: 11 } } },
    shapes: marks.map((x) => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: color("fail"), width: 1, dash: "dot" } })),
    annotations: [], uirevision: "kept",
  };
  if (cursor !== null) layout.shapes.push({ type: "line", x0: cursor, x1: cursor, y0: 0, y1: 1, yref: "paper", line: { color: color("accent"), width: 1 } });
  rows.forEach((row, k) => {
    const axis = `y${k ? k + 1 : ""}`;
    const top = 1 - k * (height + gap);
    layout[`yaxis${k ? k + 1 : ""}`] = { domain: [Math.max(0, top - height), top - 0.022], gridcolor: line, zeroline: false, type: row.log ? "log" : "linear", automargin: false, ...(row.log ? ticks(row) : { nticks: 6 }) };
    layout.annotations.push({ text: [row.title, ...(isAbove ? [] : legend(row))].join("  "), x: 0, xref: "paper", xanchor: "left", y: top + 0.004, yref: "paper", yanchor: "middle", showarrow: false, font: { color: text, size: 11 } });
    for (const trace of row.traces) {
      traces.push({ type: "scatter", mode: trace.mode ?? "lines", name: trace.name, x: trace.x, y: trace.y, yaxis: axis, line: { color: trace.color, width: 1.5, dash: trace.dash ?? "solid" }, marker: { color: trace.color, size: 6, symbol: trace.symbol ?? "circle" }, connectgaps: true, hovertemplate: "%{y:.4~g}" });
    }
  });
  await Plotly.react(element, traces, layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
  if (onHover && !element.dataset.listens) {
    element.dataset.listens = "1";
    element.on("plotly_hover", (event) => onHover(event.points[0].x));
    element.on("plotly_click", (event) => onClick(event.points[0].x));
  }
}

export async function moveCursor(element, x, marks) {
  if (!element.layout) return;
  const Plotly = await plotly();
  const shapes = element.layout.shapes.slice(0, marks);
  Plotly.relayout(element, { shapes: [...shapes, { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: color("accent"), width: 1 } }] });
}

const MAX_ROWS = 500;
const TABLE_MS = 2000;

// A button that shows the figures of charts as a table, and the element that holds it.
export function tableOf(axis, makeRows) {
  const element = h("div", { hidden: true });
  let drawn = 0;
  let later = 0;
  // Every two seconds at most, and in the place where it is read: only its rows are replaced.
  const draw = (isAsked = false) => {
    clearTimeout(later);
    if (element.hidden) return;
    const wait = drawn + TABLE_MS - performance.now();
    if (wait > 0 && !isAsked) return (later = setTimeout(draw, wait));
    drawn = performance.now();
    const parts = figuresOf(axis, makeRows());
    const [body, head] = ["tbody", "thead"].map((name) => element.querySelector(name));
    const made = h("div", {}, parts);
    if (body && head.textContent === made.querySelector("thead").textContent) body.replaceWith(made.querySelector("tbody"));
    else keepFocus(element, () => clear(element, ...made.childNodes));
  };
  const button = h("button", { class: "quiet", type: "button", "aria-pressed": "false", onclick: () => {
    element.hidden = !element.hidden;
    button.setAttribute("aria-pressed", String(!element.hidden));
    draw(true);
  } }, "Table");
  return { element, button, draw };
}

// One column for each line of the charts, one row for each place on their axis.
function figuresOf(axis, rows) {
  const lines = rows.flatMap(({ title, traces }) => traces.map(({ name, x, y }) => ({ name: name === title ? name : `${title}: ${name}`, at: new Map(x.map((place, k) => [place, y[k]])) })));
  const places = [...new Set(lines.flatMap(({ at }) => [...at.keys()]))].sort((a, b) => a - b);
  const every = Math.ceil(places.length / MAX_ROWS);
  const shown = places.filter((place, k) => k % every === 0 || k === places.length - 1);
  return [every > 1 && h("p", { class: "small muted" }, `One row in ${every} is shown; log.jsonl has all.`),
    table([axis, ...lines.map(({ name }) => name)], shown.map((place) => [place, ...lines.map(({ at }) => at.get(place))]))];
}

function table(header, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures" }, h("table", {}, h("thead", {}, h("tr", {}, header.map((name) => h("th", { class: "num", scope: "col" }, name)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", { class: "num" }, figure(cell))))))));
}

