// Lessons with a tiny GAN in the plane: the server trains it, this page draws what happens.
import { color, tableOf } from "./charts.js";
import { api, clear, explained, figure, h, keepFocus, parameters, python, quote, remember, same, say, store, stored } from "./lib.js";

const SPEEDS = [["slow", 10], ["normal", 120], ["fast", 600]]; // steps of D in a second
const MAX_STEPS = 60; // of one request
const FRAME_MS = 50; // between two requests, so that others are answered too
const HISTORY = 400;
const LABEL_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d00", "#7a5195"];
const NUMBERS = [
  ["modes", "Modes found", "How many of the eight modes of the ring have generated points.", (v) => `${v} of 8`],
  ["quality", "Near a mode", "Share of generated points within three standard deviations of a mode; of real points 99 % are.", percent],
  ["d_real", "D on real", "Mean of D's output on new real points: the probability of real, where the loss has one.", figure],
  ["d_fake", "D on fake", "The same on generated points. Where both are 0.5, D cannot tell them apart.", figure],
  ["gradient", "Gradient on fakes", "Mean norm of the gradient that a generated point receives from G's loss.", figure],
  ["d_gradient", "Gradient norm of D", "Mean norm of D's gradient at real points, which R1 keeps small.", figure],
];
const LABELS = {
  objective: "Loss", g_lr: "Learning rate of G", d_lr: "Learning rate of D", d_steps: "D steps for each G step", r1_gamma: "R1",
  gradient_penalty: "Gradient penalty", label_smoothing: "Label smoothing", instance_noise: "Noise on D's inputs", ema: "Average of G (EMA)",
  conditioning: "Labels", points: "Training points",
};
const VALUES = {
  g_lr: [0, 0.0002, 0.0005, 0.001, 0.002, 0.005], d_lr: [0, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005], d_steps: [1, 2, 3, 5],
  r1_gamma: [0, 0.01, 0.1, 1, 10], gradient_penalty: [0, 0.1, 1, 10], label_smoothing: [0, 0.1, 0.3], instance_noise: [0, 0.05, 0.15, 0.3],
  ema: [0, 0.02, 0.05, 0.1], conditioning: ["none", "labels"], points: [0, 16, 64, 1000],
};
function percent(v) { return `${Math.round(100 * v)}\u202f%`; }

export async function render(main) {
  const table = await api("/learn");
  if (!main.isConnected) return;  // another page was opened
  const view = makeView(table);
  main.append(h("div", { class: "page-head" }, h("h1", { class: "grow" }, "Learn"), h("p", { class: "muted" }, "Eight lessons with a GAN so small that you can see all of it.")), view.tabs, h("div", { class: "two learn" }, view.left, view.right));
  view.open();
  return view.close;
}

function makeView(table) {
  const pair = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const lessons = table.lessons;
  const done = new Set((stored("lessons") ?? "").match(/[^"[\],]+/g));
  const given = parameters();
  const at = { lesson: Math.max(0, lessons.findIndex((one) => one.name === given.get("lesson"))), step: 0 };
  at.step = Math.min(Math.max(0, (parseInt(given.get("step"), 10) || 1) - 1), lessons[at.lesson].steps.length);
  let choices = { ...table.start };
  let seed = 0;
  let restart = true;
  let isPlaying = false;
  let isClosed = false;
  let isAsking = false;
  let hasActed = false;
  let actedOn = ""; // the step that the pair of now has last gone through
  let acts = 0;
  let speed = 120;
  let owed = 0;
  let frame = null;
  let history = [];
  let fieldOf = 0;

  const tabs = h("nav", { class: "lessons", "aria-label": "Lessons" });
  const canvas = h("canvas", { class: "plane", role: "img", tabindex: "0", "aria-label": "The plane" });
  const numbers = h("dl", { class: "numbers" });
  const values = NUMBERS.map(() => h("dd", { class: "num" }));
  const step = h("dd", { class: "num" });
  clear(numbers, h("div", {}, h("dt", {}, "Step"), step), NUMBERS.map(([, title, meaning], k) => h("div", {}, explained("dt", meaning, "", title), values[k])));
  const curves = h("canvas", { class: "curves", role: "img", "aria-label": "Losses" });
  const figures = tableOf("step", () => ["d", "g"].map((name) => ({ title: `${name.toUpperCase()} loss`, traces: [{ name: `${name.toUpperCase()} loss`, x: history.map((row) => row.step), y: history.map((row) => row[name]) }] })));
  const play = h("button", { class: "primary", type: "button", onclick: () => setPlaying(!isPlaying) });
  const problem = h("p", { class: "fail", role: "alert" });
  const speeds = h("div", { class: "segmented", role: "group", "aria-label": "Speed" }, SPEEDS.map(([name, value]) => h("button", { type: "button", onclick: () => { speed = value; drawSpeeds(); } }, name)));
  const controls = h("div", { class: "options controls" });
  const whose = h("select", { onchange: () => { fieldOf = Number(whose.value); ask(0); } }, LABEL_COLOURS.map((_, k) => h("option", { value: k }, `label ${k}`)));
  const fieldChoice = h("label", { class: "row small muted", hidden: true }, "D's field for", whose);
  const left = h("div", { class: "stack" },
    h("div", { class: "ground plane-ground" }, canvas),
    h("p", { class: "small muted legend" }, mark("real"), "real points", mark("fake"), "points of G", mark("average"), "of its average", mark("arrow"), "what G's loss asks of a point", mark("blue"), "D: real", mark("red"), "D: fake"),
    h("div", { class: "row" }, play, h("button", { type: "button", onclick: () => { setPlaying(false); ask(1); } }, "One step"), speeds, h("button", { type: "button", onclick: () => { begin(choices); ask(0); } }, "Start again")),
    fieldChoice, problem, numbers);
  const panel = h("section", { class: "panel stack lesson", "aria-live": "polite" });
  const right = h("div", { class: "stack" }, panel, h("section", { class: "panel stack" }, h("div", { class: "row" }, h("h2", { class: "grow" }, "Losses"), figures.button), curves, figures.element, h("p", { class: "small muted legend" }, mark("d"), "D", mark("g"), "G (dashed)", h("span", {}, "The line at 1.39 is the loss of a D that cannot tell real from generated."))),
    h("details", { class: "panel" }, h("summary", {}, "Try things yourself"), controls));

  function mark(name) { return h("i", { class: `mark ${name}`, "aria-hidden": "true" }); }
  function setPlaying(wanted) {
    const isBegun = wanted && !isPlaying;
    isPlaying = wanted;
    play.textContent = isPlaying ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(isPlaying));
    if (isBegun) { last = performance.now(); loop(); }
  }

  let last = 0;
  let askedAt = 0;
  let wish = -1; // steps that were asked for while others were computed; -1: none
  function loop() {
    if (!isPlaying || isClosed) return;
    const now = performance.now();
    owed = Math.min(MAX_STEPS, owed + ((now - last) * speed) / 1000);
    last = now;
    const steps = Math.floor(owed);
    if (steps && !isAsking && !document.hidden && now - askedAt >= FRAME_MS) {
      askedAt = now;
      owed -= steps;
      ask(steps);
    }
    requestAnimationFrame(loop);
  }

  async function ask(steps) {
    if (isAsking) { if (!isPlaying) wish = Math.max(wish, steps); return; }
    isAsking = true;
    const [wasRestart, asked] = [restart, acts];
    restart = false;
    try {
      const found = await api("/learn", { body: { pair, restart: wasRestart, choices, steps, seed, field_of: fieldOf } });
      if (isClosed) return;
      const isLost = !wasRestart && frame && found.steps < frame.steps;
      if (wasRestart || isLost) history = [];
      frame = found;
      if (isLost) return lose();
      problem.textContent = found.failure;
      if (found.failure) setPlaying(false);
      if (found.measured.d_loss !== null) history = [...history, { step: found.steps, d: found.measured.d_loss, g: found.measured.g_loss }].slice(-HISTORY);
      draw();
      if (asked === acts) look(); // else it shows what was there before the button was pressed
    } catch (error) {
      restart = restart || wasRestart;
      setPlaying(false);
      problem.textContent = error.message;
    } finally {
      isAsking = false;
      const steps = restart ? Math.max(wish, 0) : wish;
      wish = -1;
      if (steps >= 0 && !isPlaying && !isClosed && !problem.textContent) ask(steps);
    }
  }

  function lose() {
    setPlaying(false);
    [hasActed, actedOn] = [false, ""];
    draw();
    problem.textContent = "This pair was not used for a while, so the server let it go: here is a new one. Begin this lesson again at its first step.";
  }

  function begin(wanted) {
    choices = { ...wanted };
    restart = true;
    [hasActed, actedOn] = [false, ""];
    owed = 0;
    problem.textContent = "";
    drawControls();
  }

  // ----- the lesson

  const lesson = () => lessons[at.lesson];
  const key = () => `${lesson().name}/${at.step}`;
  function openLesson(k, step = 0) {
    Object.assign(at, { lesson: k, step });
    hasActed = false;
    problem.textContent = "";
    remember({ lesson: lesson().name, step: step ? step + 1 : "" });
    drawLesson();
  }

  function act() {
    const step = lesson().steps[at.step];
    if (!step.restarts && ![key(), `${lesson().name}/${at.step - 1}`].includes(actedOn)) {
      setPlaying(false);
      problem.textContent = "This step goes on with the pair of the step before it: go back and do that one first.";
      return;
    }
    acts += 1;
    if (step.restarts) begin({ ...table.start, ...step.choices });
    else {
      choices = { ...choices, ...step.choices };
      if (table.restarts.some((name) => name in step.choices)) restart = true;
      drawControls();
    }
    [hasActed, actedOn] = [true, key()];
    problem.textContent = "";
    drawLesson();
    setPlaying(true);
  }

  function look() {
    const step = lesson().steps[at.step];
    if (!step || !hasActed || done.has(key()) || !step.checks.every(holds)) return;
    for (const name of (stored("lessons") ?? "").match(/[^"[\],]+/g) ?? []) done.add(name); // of another tab
    done.add(key());
    store("lessons", JSON.stringify([...done]));
    drawLesson();
    say(`Seen: ${step.see}`);
  }
  const holds = ([name, sign, limit]) => {
    const value = frame?.measured[name];
    return value !== null && value !== undefined && (sign === "<=" ? value <= limit : value >= limit);
  };
  const isDone = (one) => one.steps.every((_, k) => done.has(`${one.name}/${k}`));

  function drawLesson() {
    keepFocus(tabs, drawTabs);
    keepFocus(panel, drawPanel);
  }

  function drawTabs() {
    clear(tabs, lessons.map((one, k) => h("button", { type: "button", "aria-current": k === at.lesson ? "step" : null, onclick: () => openLesson(k) }, h("span", { class: "place num", "aria-hidden": "true" }, isDone(one) ? "\u2713" : k + 1), one.title, isDone(one) && h("span", { class: "hidden-text" }, ", done"))));
  }

  function drawPanel() {
    const step = lesson().steps[at.step];
    const total = lesson().steps.length;
    const head = [h("div", { class: "spread" }, h("h2", {}, lesson().title), h("span", { class: "muted small num" }, step ? `step ${at.step + 1} of ${total}` : "on digits"))];
    const back = at.step > 0 && h("button", { type: "button", class: "quiet", onclick: () => openLesson(at.lesson, at.step - 1) }, "Back");
    if (!step) {
      const [recipe, wanted] = lesson().digits;
      const words = ["gansmith", "train", recipe, "--minutes", "2", ...Object.entries(wanted).flatMap(([name, value]) => [`--${name.replaceAll("_", "-")}`, String(value)])];
      const keywords = Object.entries({ minutes: 2, ...wanted }).map(([name, value]) => `${name}=${python(value)}`).join(", ");
      const query = new URLSearchParams({ recipe, minutes: 2, choices: JSON.stringify(wanted) });
      const isLast = at.lesson + 1 === lessons.length;
      clear(panel, head, h("p", {}, "The same experiment with images of digits."), h("p", {}, lesson().digits_text), same({ terminal: words.map(quote).join(" "), Python: `gs.train(${python(recipe)}, ${keywords})` }, true),
        h("div", { class: "row" }, back, h("a", { class: "button", href: `/new?${query}` }, "Train it here"), !isLast && h("button", { type: "button", class: "primary", "data-name": "next", onclick: () => openLesson(at.lesson + 1) }, `Next: ${lessons[at.lesson + 1].title}`)));
      return;
    }
    const seen = done.has(key());
    clear(panel, head, h("p", {}, step.text), h("div", { class: "row" }, h("button", { type: "button", class: seen ? "" : "primary", onclick: act }, step.do)),
      h("p", { class: seen ? "seen" : "muted" }, h("span", { "aria-hidden": "true" }, seen ? "\u2713 " : "\u25cb "), seen ? "Seen: " : "Then: ", step.see),
      h("div", { class: "row" }, back, h("button", { type: "button", class: seen ? "primary" : "quiet", "data-name": "next", onclick: () => openLesson(at.lesson, at.step + 1) }, at.step + 1 < total ? "Next step" : "On digits")));
  }

  // ----- controls

  function drawControls() {
    fieldChoice.hidden = choices.conditioning !== "labels";
    clear(controls, Object.keys(table.start).map((name) => {
      const values = name === "objective" ? table.objectives : VALUES[name];
      const all = values.includes(choices[name]) ? values : [...values, choices[name]].sort((a, b) => a - b);
      const shown = (value) => (name === "points" && value === 0 ? "new ones in every step" : value === 0 ? (name.endsWith("lr") ? "0 (stands still)" : "off") : String(value));
      const pick = h("select", { title: table.meanings[name] ?? "", onchange: () => { choices = { ...choices, [name]: typeof table.start[name] === "number" ? Number(pick.value) : pick.value }; fieldChoice.hidden = choices.conditioning !== "labels"; if (table.restarts.includes(name)) { restart = true; [hasActed, actedOn] = [false, ""]; } if (!isPlaying) ask(0); } }, all.map((value) => h("option", { value, selected: value === choices[name] }, shown(value))));
      return h("label", { class: "field" }, LABELS[name] ?? name, pick);
    }));
  }
  function drawSpeeds() {
    [...speeds.children].forEach((button, k) => button.setAttribute("aria-pressed", String(SPEEDS[k][1] === speed)));
  }

  // ----- pictures

  const rgb = (text) => { const n = parseInt(text.slice(1), 16); return [n >> 16, (n >> 8) & 255, n & 255]; };
  function sized(target, width, height) {
    const ratio = Math.min(2, devicePixelRatio || 1);
    if (target.width !== Math.round(width * ratio) || target.height !== Math.round(height * ratio)) Object.assign(target, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = target.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  function draw() {
    if (!frame) return;
    const side = canvas.clientWidth || 480;
    const context = sized(canvas, side, side);
    drawField(context, side);
    const [x, y] = [(v) => ((v + 1) / 2) * side, (v) => ((1 - v) / 2) * side];
    const dot = (points, fill, size, edge) => {
      context.strokeStyle = edge;
      context.lineWidth = 1;
      points.forEach(([a, b], k) => {
        context.fillStyle = typeof fill === "function" ? fill(k) : fill;
        context.beginPath();
        context.arc(x(a), y(b), size, 0, 7);
        context.fill();
        if (edge) context.stroke();
      });
    };
    dot(frame.real, color("strong-line"), 1.6, "");
    const isLabelled = choices.conditioning === "labels" || lesson().name === "conditioning";
    dot(frame.points, isLabelled ? (k) => LABEL_COLOURS[frame.labels[k]] : color("g"), 3, color("surface"));
    if (frame.average.length) dot(frame.average, color("score"), 3, color("surface"));
    drawArrows(context, side);
    step.textContent = figure(frame.steps);
    NUMBERS.forEach(([name, , , show], k) => { values[k].textContent = frame.measured[name] === null ? "–" : show(frame.measured[name]); });
    canvas.setAttribute("aria-label", `After ${frame.steps} steps: ${frame.measured.modes} of 8 modes found, ${percent(frame.measured.quality)} of the points near one`);
    drawCurves();
  }

  function drawField(context, side) {
    const cells = frame.field.length;
    const image = new ImageData(cells, cells);
    const [ground, real, fake] = ["surface", "d", "fail"].map((name) => rgb(color(name)));
    frame.field.forEach((row, r) => row.forEach((value, c) => {
      const to = ((cells - 1 - r) * cells + c) * 4;
      const share = (Math.abs(value) / 100) * 0.5;
      for (let k = 0; k < 3; k++) image.data[to + k] = ground[k] + share * ((value > 0 ? real : fake)[k] - ground[k]);
      image.data[to + 3] = 255;
    }));
    const small = h("canvas", { width: cells, height: cells });
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, side, side);
  }

  function drawArrows(context, side) {
    context.strokeStyle = context.fillStyle = color("text");
    context.lineWidth = 1.2;
    for (const [px, py, dx, dy] of frame.arrows) {
      const size = Math.hypot(dx, dy);
      const length = 0.1 * side * (size / (size + 1.5)); // long gradients are shortened, so that all fit
      if (length < 1.5) continue;
      const [x, y] = [((px + 1) / 2) * side, ((1 - py) / 2) * side];
      const [ux, uy] = [dx / size, -dy / size];
      const [ex, ey] = [x + ux * length, y + uy * length];
      const head = Math.min(5, length / 2);
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(ex, ey);
      context.stroke();
      context.beginPath();
      context.moveTo(ex, ey);
      context.lineTo(ex - head * (ux + 0.5 * uy), ey - head * (uy - 0.5 * ux));
      context.lineTo(ex - head * (ux - 0.5 * uy), ey - head * (uy + 0.5 * ux));
      context.fill();
    }
  }

  function drawCurves() {
    const [width, height] = [curves.clientWidth || 300, 120];
    const context = sized(curves, width, height);
    context.clearRect(0, 0, width, height);
    const values = history.flatMap(({ d, g }) => [d, g]).filter((v) => v !== null);
    const [low, high] = [Math.min(0, ...values), Math.max(2, ...values)];
    const first = history[0]?.step ?? 0;
    const span = Math.max(1, (history.at(-1)?.step ?? 1) - first);
    const at = (step, value) => [30 + ((step - first) / span) * (width - 34), height - 6 - ((value - low) / (high - low)) * (height - 12)];
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = color("muted");
    context.strokeStyle = color("line");
    context.lineWidth = 1;
    for (const value of [low, 1.39, high]) {
      const [, y] = at(first, value);
      context.fillText(value.toFixed(value === 1.39 ? 2 : 1), 2, y + 3);
      context.beginPath();
      context.moveTo(30, y);
      context.lineTo(width - 4, y);
      context.stroke();
    }
    for (const [name, dashes] of [["d", []], ["g", [5, 3]]]) {
      context.strokeStyle = color(name);
      context.lineWidth = 1.5;
      context.setLineDash(dashes);
      context.beginPath();
      history.forEach((row, k) => row[name] !== null && (k ? context.lineTo(...at(row.step, row[name])) : context.moveTo(...at(row.step, row[name]))));
      context.stroke();
      context.setLineDash([]);
    }
    const newest = history.at(-1);
    figures.draw();
    curves.setAttribute("aria-label", newest ? `Losses: D ${figure(newest.d)}, G ${figure(newest.g)}` : "No losses yet");
  }

  // ----- keys

  function keys(event) {
    if (event.key === " " && !event.target.closest("button, input, select, summary, a, code, .scroll")) {
      event.preventDefault();
      setPlaying(!isPlaying);
    }
  }

  function open() {
    drawLesson();
    drawControls();
    drawSpeeds();
    setPlaying(false);
    addEventListener("keydown", keys);
    addEventListener("themechange", draw);
    addEventListener("resize", draw);
    ask(0);
  }
  function close() {
    isClosed = true;
    isPlaying = false;
    removeEventListener("keydown", keys);
    removeEventListener("themechange", draw);
    removeEventListener("resize", draw);
  }
  return { tabs, left, right, open, close };
}
