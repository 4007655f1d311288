// A trained generator in the browser: everything runs here, from files of this folder.

import * as ort from "./ort.js";

const TILES = 24;
const DIRECTIONS = 10;
const [facts, session] = await load().catch((error) => { report(error); throw error; });
let queue = Promise.resolve();

async function load() {
  const answer = await fetch("model.json");
  if (!answer.ok) throw new Error(`model.json: ${answer.status} ${answer.statusText}`);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
  return [await answer.json(), await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] })];
}

/** Return Uint8 pixels (N, size, size, channels) for latents, a Float32Array of N rows, and N labels. */
export function draw(latents, labels) {
  const run = queue.then(() => drawNow(latents, labels));
  queue = run.catch(() => {});
  return run;
}

async function drawNow(latents, labels) {
  const { size, channels, latent_dim } = facts;
  const count = latents.length / latent_dim;
  const feeds = { z: new ort.Tensor("float32", Float32Array.from(latents), [count, latent_dim]) };
  if (session.inputNames.includes("label")) {
    feeds.label = new ort.Tensor("int64", BigInt64Array.from(Array.from(labels, BigInt)), [count]);
  }
  const values = (await session.run(feeds)).images.data; // (N, C, H, W) in [-1, 1]
  const pixels = new Uint8Array(values.length);
  const plane = size * size;
  for (let n = 0; n < count; n++) {
    for (let c = 0; c < channels; c++) {
      for (let k = 0; k < plane; k++) {
        const grey = (values[(n * channels + c) * plane + k] + 1) * 127.5;
        pixels[(n * plane + k) * channels + c] = Math.min(255, Math.max(0, roundHalfEven(grey)));
      }
    }
  }
  return pixels;
}

/** Round as NumPy and torch do. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Return a function that draws numbers from [0, 1), the same for the same seed (mulberry32). */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Return the latents of tile `place` of a seed. */
function latentsOf(seed, place) {
  const next = random(Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(place + 1, 0x85ebca6b));
  for (let k = 0; k < 8; k++) next();
  return Float32Array.from({ length: facts.latent_dim }, () =>
    facts.distribution === "uniform"
      ? 2 * next() - 1
      : Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  );
}

/** Return latents with the variety and the directions that are set; the number that chooses a cluster stays. */
function moved(latents) {
  const last = facts.in_latents ? facts.latent_dim - 1 : facts.latent_dim;
  return latents.map((value, k) => {
    if (k >= last) return value;
    const step = facts.directions.reduce((sum, vector, d) => sum + state.steps[d] * vector[k], 0);
    return state.truncation * value + step;
  });
}

/** Return the label that tile `place` of a seed has where no class is chosen: as often as in training. */
function labelOf(seed, place) {
  if (state.label !== null) return state.label;
  const total = facts.frequencies.reduce((a, b) => a + b, 0);
  let point = ((random(seed)() + place * 0.6180339887498949) % 1) * total;
  const found = facts.frequencies.findIndex((share) => (point -= share) < 0);
  return found < 0 ? facts.frequencies.length - 1 : found;
}

const $ = (id) => document.getElementById(id);
const nameOf = (label) => facts.names[label] ?? String(label);
const state = { seed: 0, place: 0, label: null, steps: [], truncation: 1, text: "" };

function paint(canvas, pixels, { columns = 1, first = 0, count = 1, scale = 1 } = {}) {
  const { size, channels } = facts;
  const rows = Math.ceil(count / columns);
  const image = new ImageData(columns * size, rows * size);
  for (let n = 0; n < count; n++) {
    for (let k = 0; k < size * size; k++) {
      const x = (n % columns) * size + (k % size);
      const y = Math.floor(n / columns) * size + Math.floor(k / size);
      const from = ((first + n) * size * size + k) * channels;
      const to = (y * image.width + x) * 4;
      for (let c = 0; c < 3; c++) image.data[to + c] = pixels[from + (channels === 1 ? 0 : c)];
      image.data[to + 3] = 255;
    }
  }
  canvas.width = image.width * scale;
  canvas.height = image.height * scale;
  const context = canvas.getContext("2d");
  const small = new OffscreenCanvas(image.width, image.height);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

let wanted = 0;

/** Draw everything that is shown; where the state changes meanwhile, the newest wins. */
async function refresh() {
  const mine = ++wanted;
  await new Promise(requestAnimationFrame);
  if (mine !== wanted) return;
  remember();
  const chosen = moved(latentsOf(state.seed, state.place));
  const label = labelOf(state.seed, state.place);
  const large = await draw(chosen, [label]);
  if (mine !== wanted) return;
  $("status").hidden = true;
  paint($("large"), large, { scale: Math.max(1, Math.floor(336 / facts.size)) });
  const what = facts.has_labels ? `class ${nameOf(label)}, ` : "";
  $("caption").textContent = `${what}seed ${state.seed}, sample ${state.place + 1}`;
  $("large").setAttribute("aria-label", `Generated image: ${$("caption").textContent}`);
  const places = Array.from({ length: TILES }, (_, k) => k);
  const labels = places.map((k) => labelOf(state.seed, k));
  const tiles = await draw(places.flatMap((k) => [...moved(latentsOf(state.seed, k))]), labels);
  if (mine !== wanted) return;
  for (const [k, button] of [...$("samples").children].entries()) {
    paint(button.firstChild, tiles, { first: k });
    button.setAttribute("aria-pressed", String(k === state.place));
    button.setAttribute("aria-label", `Sample ${k + 1}${facts.has_labels ? `, class ${nameOf(labels[k])}` : ""}`);
  }
  await write(mine);
  document.body.dataset.drawn = String(mine);
}

/** Return the class of a character, in the other case where there is none in its own. */
function classOf(character) {
  const { characters } = facts;
  return characters[character] ?? characters[character.toLowerCase()] ?? characters[character.toUpperCase()];
}

/** Draw the text in the chosen sample's style, or each character in its own. */
async function write(mine) {
  if ($("write-section").hidden) return;
  const known = [...state.text].map((character) => [character, classOf(character)]);
  const found = known.filter(([, label]) => label !== undefined);
  const missing = known.filter(([character, label]) => label === undefined && character.trim());
  $("missing").textContent = missing.length ? `There is no class for ${missing.map(([c]) => c).join(" ")}` : "";
  $("written").hidden = $("save-text").disabled = !found.length;
  if (!found.length) return;
  const rows = found.flatMap((_, k) => [...moved(latentsOf(state.seed, state.place + ($("one-hand").checked ? 0 : k)))]);
  const pixels = await draw(rows, found.map(([, label]) => label));
  if (mine !== wanted) return;
  const scale = Math.max(1, Math.floor(56 / facts.size));
  const room = Math.max(1, Math.floor($("write-section").clientWidth / (scale * facts.size)));
  paint($("written"), pixels, { columns: Math.min(room, found.length), count: found.length, scale });
  $("written").setAttribute("aria-label", `Written: ${found.map(([character]) => character).join("")}`);
}

/** Keep the state in the address, so that a link opens the same view. */
function remember() {
  const parts = new URLSearchParams({ seed: state.seed, sample: state.place + 1 });
  if (state.label !== null) parts.set("class", state.label);
  if (state.truncation !== 1) parts.set("variety", state.truncation);
  if (state.steps.some((step) => step)) parts.set("directions", state.steps.join(","));
  if (state.text) parts.set("text", state.text);
  clearTimeout(writing); // browsers allow a hundred changes in half a minute, and a slider makes more
  writing = setTimeout(() => history.replaceState(null, "", `#${parts}`), 350);
}
let writing = 0;

function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const number = (name, low, high, otherwise) => {
    const value = parts.has(name) ? Number(parts.get(name)) : NaN;
    return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : otherwise;
  };
  state.seed = Math.round(number("seed", 0, 999999999, 0));
  state.place = Math.round(number("sample", 1, TILES, 1)) - 1;
  const label = Math.round(number("class", 0, facts.frequencies.length - 1, -1));
  state.label = facts.has_labels && facts.labels.includes(label) ? label : null;
  state.truncation = number("variety", 0, 1.2, 1);
  const steps = (parts.get("directions") ?? "").split(",").map(Number);
  state.steps = facts.directions.map((_, d) => (Number.isFinite(steps[d]) ? Math.min(4, Math.max(-4, steps[d])) : 0));
  state.text = (parts.get("text") ?? facts.text).slice(0, 24);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Return a NumPy file of float32 rows, as `gansmith sample --latents` takes it. */
export function npy(latents, width) {
  const shape = `(${latents.length / width}, ${width})`;
  let header = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`;
  header = header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11) + "\n";
  const start = Uint8Array.from([0x93, ...[..."NUMPY"].map((c) => c.charCodeAt(0)), 1, 0, header.length & 255, header.length >> 8]);
  return new Blob([start, header, Float32Array.from(latents)]);
}

function build() {
  $("large").style.setProperty("--small", `${Math.max(1, Math.floor(128 / facts.size)) * Math.min(128, facts.size)}px`);
  document.title = facts.title;
  $("title").textContent = facts.title;
  $("about").textContent = facts.about;
  $("class-section").hidden = !facts.has_labels;
  const buttons = facts.has_labels ? [null, ...facts.labels] : [];
  for (const label of buttons) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label === null ? "any" : nameOf(label);
    button.dataset.label = label === null ? "" : label;
    button.addEventListener("click", () => { state.label = label; show(); });
    $("classes").append(button);
  }
  for (let k = 0; k < TILES; k++) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("canvas"));
    button.addEventListener("click", () => { state.place = k; show(); });
    $("samples").append(button);
  }
  facts.directions.slice(0, DIRECTIONS).forEach((_, d) => {
    const row = document.createElement("label");
    row.className = "slider";
    row.innerHTML = '<span></span><input type="range" min="-4" max="4" step="0.1"><output></output>';
    row.children[0].textContent = `PC ${d + 1} (${(100 * facts.shares[d]).toFixed(0)} %)`;
    row.children[1].addEventListener("input", (event) => { state.steps[d] = Number(event.target.value); show(); });
    $("directions").append(row);
  });
  $("variety").hidden = !facts.has_truncation;
  $("write-section").hidden = !Object.keys(facts.characters).length;
  $("write-title").textContent = /^\d/.test(facts.text) ? "Write this number" : "Write this word";
  $("more").addEventListener("click", () => { state.seed = Math.floor(Math.random() * 1e6); show(); });
  $("seed").addEventListener("change", (event) => {
    state.seed = Math.min(999999999, Math.max(0, Math.round(Number(event.target.value) || 0)));
    show();
  });
  $("text").addEventListener("input", (event) => { state.text = event.target.value; show(); });
  $("one-hand").addEventListener("change", show);
  $("truncation").addEventListener("input", (event) => { state.truncation = Number(event.target.value); show(); });
  $("reset").addEventListener("click", () => { state.steps.fill(0); state.truncation = 1; show(); });
  $("save-image").addEventListener("click", () => $("large").toBlob((blob) => save(blob, "image.png")));
  $("save-text").addEventListener("click", () => $("written").toBlob((blob) => save(blob, `${state.text || "text"}.png`)));
  $("save-latents").addEventListener("click", () =>
    save(npy(moved(latentsOf(state.seed, state.place)), facts.latent_dim), "latents.npy"));
  addEventListener("hashchange", () => { recall(); show(); });
  let width = innerWidth; // the height changes as a phone's address bar comes and goes
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; show(); } });
}

/** Bring the controls in line with the state and draw. */
function show() {
  for (const button of $("classes").children) {
    button.setAttribute("aria-pressed", String(button.dataset.label === (state.label === null ? "" : String(state.label))));
  }
  [...$("directions").children].forEach((row, d) => {
    row.children[1].value = state.steps[d];
    row.children[2].textContent = state.steps[d].toFixed(1);
  });
  $("truncation").value = state.truncation;
  $("truncation-value").textContent = state.truncation.toFixed(2);
  $("seed").value = state.seed;
  if ($("text").value !== state.text) $("text").value = state.text;
  refresh().catch(report);
}

function report(error) {
  const status = document.getElementById("status"); // $ is not there yet where loading fails
  status.hidden = false;
  status.textContent = `The generator could not be run (${error.message}); reload the page, or use a newer browser.`;
}

build();
recall();
$("status").hidden = true;
document.querySelector("main").hidden = false;
show();
if ("serviceWorker" in navigator && isSecureContext) navigator.serviceWorker.register("offline.js").catch(() => {});
