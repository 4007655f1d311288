// The frame: pages by address, the machine's state in the header, keys.
import { clear, count, dropped, duration, follow, h, oops, renew, say, store, stored, url, writeAddress } from "./lib.js";
import "./notes.js";

const PAGES = [
  { pattern: /^\/$/, module: "./runs.js", tab: "Runs", title: "Runs" },
  { pattern: /^\/runs\/([^/]+)$/, module: "./run.js", tab: "Runs", title: "Run" },
  { pattern: /^\/new$/, module: "./new.js", tab: "Runs", title: "New run" },
  { pattern: /^\/explore(?:\/([^/]+))?$/, module: "./explore.js", tab: "Explore", title: "Explore" },
  { pattern: /^\/compare$/, module: "./compare.js", tab: "Compare", title: "Compare" },
  { pattern: /^\/learn$/, module: "./learn.js", tab: "Learn", title: "Learn" },
];
const TABS = [["Runs", "/"], ["Explore", "/explore"], ["Compare", "/compare"], ["Learn", "/learn"]];

const main = document.getElementById("main");
let leave = () => {};
let opened = 0;

// What the server says of all runs, for every page.
export const state = { runs: new Map(), jobs: [], machine: null, is_held: false, isKnown: false, isLost: false, dropped: null };
const listeners = new Set();
export function watch(listener) {
  listeners.add(listener);
  if (state.isKnown) listener(state);
  return () => listeners.delete(listener);
}
// What the overview says of a run that changes with its scores and samples.
export const sayingOf = (id) => {
  const card = state.runs.get(id); // null before the first overview
  return card ? JSON.stringify([card.status, card.fd_ratio, card.evaluated, card.grid]) : null;
};
// Resolves once the first overview is here.
export const known = () => new Promise((resolve) => {
  const listener = () => { listeners.delete(listener); resolve(); };
  state.isKnown ? resolve() : listeners.add(listener);
});

const ofAll = {
  overview(news) {
    if (isAnew) state.runs.clear();
    isAnew = false;
    for (const run of news.runs ?? []) state.runs.set(run.id, run);
    for (const id of news.gone ?? []) state.runs.delete(id);
    for (const name of ["jobs", "machine", "is_held"]) if (name in news) state[name] = news[name];
    state.isKnown = true;
    drawMachine();
    for (const listener of listeners) listener(state);
  },
};
let isAnew = false; // the first overview of a stream holds all runs
function opens(isOpen) {
  if (isOpen) isAnew = true;
  if (state.isLost !== !isOpen) {
    state.isLost = !isOpen;
    drawMachine();
  }
}
let unfollow = follow("/events", ofAll, opens);

// A run's news come in one stream with those of all runs: a browser opens six connections to a server for all its pages together.
export function followRun(id, handlers) {
  unfollow();
  unfollow = follow(`/runs/${id}/events?all=true`, { ...ofAll, ...handlers }, opens);
  const own = unfollow;
  return () => {
    if (unfollow !== own) return;
    unfollow();
    unfollow = follow("/events", ofAll, opens);
  };
}

export function go(path) {
  writeAddress();
  history.replaceState({ scroll: scrollY }, ""); // for the way back
  history.pushState(null, "", path);
  open();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function open() {
  const number = ++opened;
  leave();
  leave = () => {};
  const page = PAGES.find((one) => one.pattern.test(location.pathname));
  drawTabs(page?.tab);
  document.title = `${page?.title ?? "Not found"} · Gansmith studio`;
  main.setAttribute("aria-label", page?.title ?? "Not found");
  clear(main, h("div", { class: "skeleton", style: { height: "240px" } }));
  if (!page) return clear(main, oops(new Error("There is no page at this address.")));
  try {
    const { render } = await import(page.module);
    if (number !== opened) return;
    const given = page.pattern.exec(location.pathname)[1];
    const place = h("div", { class: "page" });  // of its own: a page that was left while it loaded draws on nothing shown
    clear(main, place);
    const close = (await render(place, given === undefined ? undefined : decodeURIComponent(given))) ?? (() => {});
    if (number === opened) leave = close;
    else close();
    if (history.state?.scroll) scrollTo(0, history.state.scroll);
    if (number > 1 && document.activeElement === document.body) main.focus({ preventScroll: true });
    if (number > 1) say(document.title);
  } catch (error) {
    if (number !== opened) return;
    const isLost = error instanceof TypeError && /import|module/i.test(error.message); // the page's own script did not come
    clear(main, isLost ? oops(new Error("The server does not answer, or no longer knows this browser. Start it again, or open the address that it printed."), () => location.reload()) : oops(error, open));
  }
}

const links = (current) => TABS.map(([name, path]) => h("a", { href: path, "aria-current": name === current ? "page" : null }, name));

let machine;
function drawTabs(current) {
  machine = h("div", { class: "machine" });
  clear(
    document.getElementById("bar"),
    h("a", { class: "brand", href: "/" }, h("img", { src: "/static/icon.svg", alt: "" }), "Gansmith"),
    h("nav", { "aria-label": "Pages" }, links(current)),
    machine,
    h("button", { class: "quiet icon", "aria-label": "Switch between light and dark", title: "Light or dark", onclick: switchTheme }, "◐"),
  );
  clear(document.getElementById("tabs"), links(current));
  drawMachine();
}

function drawMachine() {
  if (!machine) return;
  const running = [...state.runs.values()].find((run) => run.status === "running");
  const waiting = state.jobs.filter((job) => job.state === "queued").length;
  renew(machine, [state.isLost, waiting, state.is_held, running?.id], () => [
    state.isLost && h("span", { class: "badge fail", role: "alert" }, "Server not reached; trying again"),
    waiting > 0 && h("span", { class: "badge" }, `${waiting} waiting${state.is_held ? ", on hold" : ""}`),
    running && h("a", { class: "running", href: `/runs/${running.id}`, "aria-label": `Training ${running.id}` },
      h("img", { alt: "", hidden: true }), h("span", { class: "num" })),
    h("span", { class: "load num" }, h("span"), h("span")),
  ]);
  const isMeasured = state.machine !== null && state.machine.load !== null;
  const [cores, load] = machine.querySelector(".load").children;
  cores.textContent = isMeasured ? `${count(state.machine.cores)} cores ` : "";
  load.textContent = isMeasured ? `${Math.round(100 * state.machine.load)}\u202f%` : "";
  if (running) drawRunning(running);
}

function drawRunning(run) {
  const image = machine.querySelector(".running img");
  const source = url(`/runs/${run.id}/grids/${run.grid}`);
  if (run.grid !== null && image.getAttribute("src") !== source) Object.assign(image, { src: source, hidden: false });
  machine.querySelector(".running .num").textContent = run.seconds_left === null ? "starting" : `${duration(run.seconds_left)} left`;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  window.dispatchEvent(new Event("themechange"));
}

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  store("theme", theme);
  setTheme(theme);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => { if (!stored("theme")) setTheme(matches ? "dark" : "light"); });

const KEYS = [["/", "search"], ["space", "play or pause"], ["← →", "frame before, frame after; tile before, tile after"], ["Enter", "pin a tile"], ["?", "this list"], ["Esc", "close"]];
function showKeys() {
  const dialog = h("dialog", { "aria-label": "Keys" }, h("div", { class: "stack" }, h("h2", {}, "Keys"),
    h("table", {}, h("tbody", {}, KEYS.map(([key, what]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", {}, what))))),
    h("form", { method: "dialog" }, h("button", {}, "Close"))));
  dialog.querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); dialog.close(); });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?") showKeys();
  if (event.key === "/") {
    const search = main.querySelector("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  }
});
document.addEventListener("click", (event) => {
  if (event.target.closest(".skip")) { // its address would open the page again
    event.preventDefault();
    return main.focus();
  }
  const link = event.target.closest("a[href^='/']");
  if (!link || link.target || link.hasAttribute("download") || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  if (link.getAttribute("href").startsWith("/api/")) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault()); // a file beside its zone would be opened
document.addEventListener("drop", async ({ dataTransfer }) => { // on the runs, images for a new one
  if (location.pathname !== "/" || !dataTransfer.files.length) return;
  state.dropped = await dropped(dataTransfer);
  go("/new#data");
});
addEventListener("popstate", open);
open();
