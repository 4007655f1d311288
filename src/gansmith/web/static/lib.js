// What all pages share: elements, requests, numbers, explanations.

export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(element.style, value);
    else if (key in element && !["list", "form", "type", "role"].includes(key) && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key === "class" ? "class" : key, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const clear = (element, ...children) => {
  element.replaceChildren(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

const CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']";
const controlsOf = (element) => [...element.querySelectorAll(CONTROLS)].filter((control) => !control.disabled);
const nameOf = (control) => control.dataset.name ?? control.getAttribute("aria-label") ?? control.textContent;

// Changes what an element holds. Where the control that had the focus goes, the one that has its name now gets it, else the
// one in its place.
export function keepFocus(element, change) {
  const held = element.contains(document.activeElement) ? document.activeElement : null;
  const place = held ? controlsOf(element).indexOf(held) : 0;
  change();
  if (!held || held.isConnected) return;
  const controls = controlsOf(element);
  const named = controls.filter((control) => nameOf(control) === nameOf(held));
  const next = named.find((control) => controls.indexOf(control) >= place) ?? named.at(-1) ?? controls[Math.min(place, controls.length - 1)];
  if (!next) element.tabIndex = -1;
  (next ?? element).focus({ preventScroll: true });
}

// Makes what an element holds again where what it shows has changed.
export function renew(element, shown, make) {
  const text = JSON.stringify(shown);
  if (element.shown === text) return;
  element.shown = text;
  keepFocus(element, () => clear(element, make()));
}

// Replaces cards of runs; the new card of the run that had the focus gets it.
export function replaceCards(shelf, cards) {
  const focused = shelf.contains(document.activeElement) ? document.activeElement : null;
  const run = focused?.closest("[data-run]")?.dataset.run;
  clear(shelf, cards);
  if (run) shelf.querySelector(`[data-run="${CSS.escape(run)}"] ${focused.nodeName}`)?.focus({ preventScroll: true });
}

const API = "/api/v1";

export class Refused extends Error {
  constructor(message, kind = "") {
    super(message);
    this.kind = kind;
  }
}

export async function api(path, options) {
  return (await answerOf(path, options)).json();
}

// Saves what the server answers as a file; a refusal is shown.
export async function download(path, { name, ...options }) {
  try {
    saveBlob(await (await answerOf(path, options)).blob(), name);
  } catch (error) {
    error.name === "AbortError" ? toast(`${name} is cancelled.`) : alarm(error);
  }
}

function saveBlob(data, name) {
  const link = h("a", { href: URL.createObjectURL(data), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A button that saves canvases side by side as one PNG file, enlarged by whole pixels.
export function savingButton(pictures, columns, name) {
  return h("button", { type: "button", "aria-label": `Save as PNG: ${name}`, onclick: () => {
    const side = Math.max(1, Math.floor(112 / pictures[0].width)) * pictures[0].width;
    const sheet = h("canvas", { width: columns * side, height: Math.ceil(pictures.length / columns) * side });
    const context = sheet.getContext("2d");
    context.imageSmoothingEnabled = false;
    pictures.forEach((picture, k) => context.drawImage(picture, (k % columns) * side, Math.floor(k / columns) * side, side, side));
    sheet.toBlob((data) => saveBlob(data, name), "image/png");
  } }, "PNG");
}

async function answerOf(path, { body, method = body ? "POST" : "GET", signal, raw } = {}) {
  const headers = body || method !== "GET" ? { "content-type": raw ? "application/octet-stream" : "application/json" } : {};
  let answer;
  try {
    answer = await patiently(() => fetch(API + path, { method, headers, signal, body: raw ?? (body ? JSON.stringify(body) : method === "GET" ? undefined : "{}") }), signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer; start it again with gansmith studio.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) location.reload(); // the server was started again with another token, and says so on the page
  const found = await answer.json().catch(() => ({}));
  throw new Refused(found.error?.message ?? `The server answered ${answer.status}.`, found.error?.kind);
}

// Too many requests at once are put off, not given up.
async function patiently(ask, signal, left = 6) {
  const answer = await ask();
  if (answer.status !== 429 || !left) return answer;
  await new Promise((resolve) => setTimeout(resolve, 350));
  signal?.throwIfAborted();
  return patiently(ask, signal, left - 1);
}

export const url = (path) => API + path;

// An event source that goes on after the server comes back: it asks for what came after the last message. Only visible pages
// hold one, since a browser opens six connections to a server for all its tabs together.
export function follow(path, handlers, onState = () => {}) {
  let source = null;
  let last = "";
  let isOver = false;
  function open() {
    source = new EventSource(API + path + (last ? `${path.includes("?") ? "&" : "?"}after=${last}` : ""));
    for (const [name, handler] of Object.entries(handlers)) source.addEventListener(name, (event) => { last = event.lastEventId || last; handler(JSON.parse(event.data)); });
    source.onopen = () => onState(true);
    source.onerror = () => { onState(false); if (source?.readyState === EventSource.CLOSED) refused(); };
  }
  function refused() {
    const again = () => setTimeout(turn, 3000);
    api(handlers.gone ? path.replace(/\/events.*/, "") : "/jobs").then(again, (error) => (handlers.gone && error.kind === "NotFoundError" ? handlers.gone({ message: error.message }) : again()));
  }
  function turn() {
    source?.close();
    source = null;
    if (!document.hidden && !isOver) open();
  }
  document.addEventListener("visibilitychange", turn);
  turn();
  return () => {
    isOver = true;
    document.removeEventListener("visibilitychange", turn);
    turn();
  };
}

export const count = (n) => (n === null || n === undefined ? "–" : Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f"));
export const wholeSeed = (text) => Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.floor(Number(text) || 0)));
export const ratio = (n) => (n === null || n === undefined ? "–" : n < 100 ? n.toFixed(2) : count(n));
// An evaluation of older images than those whose score is shown.
export const olderVerdict = (found) => `evaluated: ${ratio(found.fd_ratio)} at ${count(found.images_seen)} images${found.valid === false ? ", gates failed" : ""}`;
// What a run's newest images scored: by the verdict, where training has not scored newer ones.
export const isNewest = (verdict, score) => Boolean(verdict) && !(score && score.images_seen > verdict.images_seen);
export const gatesFailed = () => h("span", { class: "badge fail" }, "gates failed");
export const figure = (n) => (n === null || n === undefined ? "–" : typeof n !== "number" ? String(n) : Number.isInteger(n) ? count(n) : +n.toPrecision(4) + "");
export function duration(s) {
  if (s === null || s === undefined) return "";
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  const minutes = Math.round(s / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
export function when(seconds) {
  const ago = Date.now() / 1000 - seconds;
  const date = new Date(seconds * 1000);
  if (ago < 90 && ago > -90) return "just now";
  if (ago < 3600 && ago > 0) return `${Math.round(ago / 60)} min ago`;
  const isToday = date.toDateString() === new Date().toDateString();
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, "0"));
  return isToday ? date.toTimeString().slice(0, 5) : day.join("-");
}

export const MEANINGS = {
  fd_ratio: "How far the samples are from real images, over how far other real images are. 1.00 = as close as other real images.",
  validation_fd_ratio: "FD ratio against images held out of training, measured while it trains. 1.00 = as close as other real images.",
  d_loss: "Loss of the discriminator D, which tells real images from generated ones.",
  g_loss: "Loss of the generator G, which draws images.",
  d_real: "Mean of D's sigmoid on real images: near 1, it is sure that they are real.",
  d_fake: "Mean of D's sigmoid on generated images: near 0, it is sure that they are not real.",
  d_grad_norm: "Norm of D's gradients; a sudden rise warns of divergence.",
  g_grad_norm: "Norm of G's gradients; near zero, G learns nothing any more.",
  images_per_s: "Training images shown to D in a second.",
  truncation: "Below 1, styles move towards their mean: higher fidelity, less variety.",
  seed: "The same seed always gives the same images.",
};
export const term = (text, key, kind = "") => explained("span", MEANINGS[key] ?? key, kind, text);
// An element whose meaning shows when it is pointed at or has the focus.
export const explained = (name, meaning, kind, ...children) => h(name, { class: `tip ${kind}`, tabindex: "0", "data-tip": meaning, "aria-description": meaning }, ...children);

export function code(text, label) {
  const button = h("button", { class: "quiet", type: "button", "aria-label": `Copy: ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text, line)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 1200);
  });
  const line = h("code", { tabindex: "0" }, text);
  return h("div", { class: "code", role: "group", "aria-label": label }, line, button);
}

// Whether a text is in the clipboard, which not every page may write to; else it is selected.
async function copied(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}

const titleOf = (lines) => (Object.keys(lines).some((name) => name.startsWith("terminal")) ? "The same in a terminal, in Python" : "The same in Python");
export const same = (lines, isOpen = false) => h("details", { class: "panel", open: isOpen }, h("summary", {}, titleOf(lines)), h("div", { class: "stack" }, Object.entries(lines).map(([name, line]) => code(name === "Python" && /\bgs\./.test(line) ? `import gansmith as gs; ${line}` : line, name))));

export const oops = (error, retry) => h("div", { class: "empty", role: "alert" }, h("h2", {}, "That did not work"), h("p", {}, error.message), retry && h("button", { onclick: retry }, "Try again"));

export const say = (text) => (document.getElementById("announce").textContent = text);

export function toast(text, ...actions) {
  document.querySelectorAll(".toast.brief").forEach((old) => old.remove());
  const element = h("div", { class: actions.length ? "toast" : "toast brief" }, text, ...actions);
  document.getElementById("notes").append(element); // what is put there is read aloud
  if (!actions.length) setTimeout(() => element.remove(), 6000);
  return element;
}

// An error, which stays until it is closed.
export function alarm(error) {
  document.querySelectorAll(".toast.alarm").forEach((old) => old.remove());
  const element = toast(error.message, h("button", { onclick: () => { element.remove(); document.getElementById("main").focus({ preventScroll: true }); } }, "Close"));
  element.classList.add("alarm");
}

// The address keeps what a view shows, so that it can be opened again.
export function parameters() {
  writeAddress();
  return new URLSearchParams(location.search);
}

const ADDRESS_MS = 350; // between two changes of the address: browsers allow a hundred in half a minute, and pass over others
let pending = {};
let ofPage = "";
let written = -ADDRESS_MS;
let writing = 0;
export function remember(changes) {
  pending = { ...(ofPage === location.pathname ? pending : {}), ...changes };
  ofPage = location.pathname;
  const wait = written + ADDRESS_MS - performance.now();
  if (wait <= 0) writeAddress();
  else if (!writing) writing = setTimeout(writeAddress, wait);
}

addEventListener("popstate", () => { pending = {}; }); // another entry is shown
addEventListener("pagehide", () => writeAddress());

// Writes what waits to be in the address, unless its page was left.
export function writeAddress() {
  clearTimeout(writing);
  writing = 0;
  const [changes, isShown] = [Object.entries(pending), ofPage === location.pathname];
  pending = {};
  if (!changes.length || !isShown) return;
  const found = new URLSearchParams(location.search);
  for (const [key, value] of changes) value === null || value === undefined || value === "" ? found.delete(key) : found.set(key, value);
  const text = found.toString();
  if (text === location.search.slice(1)) return;
  written = performance.now();
  history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : ""));
}

// What this browser keeps between visits; nothing where it keeps nothing, as in some frames.
export function stored(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
export function store(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch { /* it is kept until the page is left */ }
}

// Of requests of one kind only the last counts: each call aborts the signal of the call before, and gives a new one.
export function latest() {
  let asking = null;
  return () => {
    asking?.abort();
    asking = new AbortController();
    return asking.signal;
  };
}

// At once, and within the same frame only the last one, at its end.
export const debounced = (action) => {
  let frame = 0;
  let asked = null;
  function run() {
    frame = 0;
    if (!asked) return;
    const given = asked;
    asked = null;
    frame = requestAnimationFrame(run);
    action(...given);
  }
  return (...given) => {
    asked = given;
    if (!frame) run();
  };
};

// A picture of tiles side by side as one canvas for each.
export async function tilesOf(answer) {
  const bytes = Uint8Array.from(atob(answer.png), (letter) => letter.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const found = [];
  for (let k = 0; k < answer.count; k++) {
    const canvas = h("canvas", { width: answer.size, height: answer.size });
    const [x, y] = [(k % answer.columns) * answer.size, Math.floor(k / answer.columns) * answer.size];
    canvas.getContext("2d").drawImage(picture, -x, -y);
    found.push(canvas);
  }
  return found;
}

// A run or one of its checkpoints as commands take it.
export const sourceOf = (path, checkpoint) => (checkpoint ? `${path}/checkpoints/${String(checkpoint).padStart(9, "0")}` : path);

// Statements in Python that give the model, latent and class id of a tile.
export const inputsOf = (source, { seed, index, y }) => [
  "import torch", "from gansmith.latent_space import truncated", "from gansmith.sampling import draw_inputs, generate", `model = gs.load(${python(source)})`,
  `z, y = draw_inputs(model, seed=${seed}, count=${index + 1})`, `z, y = z[-1:], ${y === undefined ? "y[-1:]" : `torch.tensor([${y}])`}`,
];

// A value as Python writes it.
export const python = (value) => (typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value));

export function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${String(word).replaceAll("'", `'"'"'`)}'`;
}

// Files of a drop, folders followed.
export async function dropped(transfer) {
  const found = [];
  const read = (entry) => new Promise((resolve) => {
    if (entry.isFile) entry.file((file) => { file.relative = entry.fullPath.replace(/^\//, ""); found.push(file); resolve(); }, resolve);
    else {
      const reader = entry.createReader();
      const more = () => reader.readEntries(async (entries) => {
        if (!entries.length) return resolve();
        for (const inner of entries) await read(inner);
        more();
      }, resolve);
      more();
    }
  });
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await read(entry);
  return found.length ? found : [...transfer.files];
}
