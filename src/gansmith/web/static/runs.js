// All runs of the directory as cards.
import { state, watch } from "./app.js";
import { alarm, api, clear, count, duration, gatesFailed, h, keepFocus, MEANINGS, olderVerdict, parameters, ratio, remember, renew, replaceCards, toast, url, when } from "./lib.js";

const STATES = ["running", "finished", "stopped", "failed", "killed", "unknown", "unreadable"];
const SORTS = {
  newest: (a, b) => (b.changed_at ?? 0) - (a.changed_at ?? 0), // what cannot be read has no time
  "FD ratio": (a, b) => (a.fd_ratio ?? Infinity) - (b.fd_ratio ?? Infinity),
  name: (a, b) => a.id.localeCompare(b.id),
  images: (a, b) => (b.images_seen ?? 0) - (a.images_seen ?? 0),
};

const MOST = 8; // runs side by side
const picked = new Set(); // also when this page is come back to

export function render(main) {
  const cards = new Map();
  const shelf = h("div", { class: "cards" });
  const queue = h("div", { class: "stack" });
  const bar = h("div", { class: "toast", hidden: true });
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search runs", value: parameters().get("q") ?? "", oninput: () => draw() });
  const selects = Object.fromEntries(["data", "recipe", "state", "sort"].map((name) => [name, h("select", { "aria-label": name === "sort" ? "Sort by" : `Filter by ${name}`, onchange: () => draw() })]));
  const tools = h("div", { class: "page-head toolbar" }, h("a", { class: "button primary", href: "/new" }, "New run"), search, Object.values(selects));
  main.append(h("h1", { class: "hidden-text" }, "Runs"), tools, queue, shelf, bar);

  function fill(name, values, first) {
    const select = selects[name];
    const now = select.value || parameters().get(name) || "";
    if (first && now && !values.includes(now)) values.push(now); // it stays chosen where its last run is gone
    const wanted = [...(first ? [["", first]] : []), ...values.map((value) => [value, name === "sort" ? `sort: ${value}` : value])];
    if ([...select.options].map((option) => option.value).join() !== wanted.map(([value]) => value).join()) {
      clear(select, wanted.map(([value, text]) => h("option", { value, selected: value === now }, text)));
    }
  }

  function draw() {
    const runs = [...state.runs.values()];
    const waiting = state.jobs.filter(isTold);
    const gone = [...picked].filter((id) => !state.runs.has(id));
    gone.forEach((id) => picked.delete(id));
    if (gone.length || bar.hidden === picked.size > 0) drawBar();
    tools.hidden = !runs.length && !waiting.length;
    drawQueue(waiting);
    fill("data", [...new Set(runs.map((run) => run.data).filter(Boolean))].sort(), "all data");
    fill("recipe", [...new Set(runs.map((run) => run.recipe).filter(Boolean))].sort(), "all recipes");
    fill("state", STATES.filter((name) => runs.some((run) => run.status === name)), "all states");
    fill("sort", Object.keys(SORTS));
    const [data, recipe, status, sort] = ["data", "recipe", "state", "sort"].map((name) => selects[name].value);
    remember({ q: search.value, data, recipe, state: status, sort: sort === "newest" ? "" : sort });
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = runs
      .filter((run) => (!data || run.data === data) && (!recipe || run.recipe === recipe) && (!status || run.status === status))
      .filter((run) => words.every((word) => `${run.id} ${run.data} ${run.recipe} ${run.status}`.toLowerCase().includes(word)))
      .sort(SORTS[sort] ?? SORTS.newest);
    for (const run of shown) {
      const text = JSON.stringify([run, when(run.changed_at)]);
      if (cards.get(run.id)?.text === text) continue;
      const old = cards.get(run.id)?.element;
      const element = card(run, old);
      if (old?.parentNode === shelf) keepFocus(shelf, () => old.replaceWith(element)); // others stay, and what is pressed in them
      cards.set(run.id, { text, element });
    }
    const elements = shown.map((run) => cards.get(run.id).element);
    const isEmpty = !runs.length && !waiting.length;
    const isHidden = !shown.length && runs.length > 0;
    if (isEmpty) renew(shelf, "empty", first);
    else if (isHidden) renew(shelf, "hidden", () => [h("p", { class: "muted" }, "No run matches. ", h("button", { class: "quiet", onclick: reset }, "Show all"))]);
    else if ([...shelf.children].some((child, k) => child !== elements[k]) || shelf.children.length !== elements.length) replaceCards(shelf, elements);
    if (!isEmpty && !isHidden) shelf.shown = "";
    shelf.className = isEmpty ? "" : "cards";
  }

  function reset() {
    search.value = "";
    for (const select of Object.values(selects)) select.selectedIndex = 0;
    draw();
    search.focus(); // the button is gone
  }

  function card(run, old) {
    const failed = run.status === "failed" || run.failures?.length;
    const picture = run.grid !== null && run.grid !== undefined
      ? h("img", { src: url(`/runs/${run.id}/grids/${run.grid}`), alt: `Samples of ${run.id} after ${run.grid} images`, loading: "lazy" })
      : h("span", { class: "muted small" }, run.error ? "" : "no samples yet");
    const pick = h("input", { type: "checkbox", checked: picked.has(run.id), "aria-label": `Choose ${run.id} to compare`, onchange: (event) => { event.target.checked = choose(run.id, event.target.checked); } });
    const element = h("article", { class: "card", "data-run": run.id },
      h("a", { href: `/runs/${run.id}` },
        h("div", { class: "ground" }, picture),
        h("div", { class: "spread" }, h("span", { class: "title" }, run.data ? [run.recipe, h("span", { class: "muted", style: { fontWeight: 400 } }, ` ${run.data}`)] : run.id),
          run.fd_ratio !== null && run.fd_ratio !== undefined && h("span", { class: "num fd", title: `FD ratio. ${MEANINGS[run.scored_by === "evaluate" ? "fd_ratio" : "validation_fd_ratio"]}` }, h("span", { class: "hidden-text" }, "FD ratio "), ratio(run.fd_ratio))),
        run.data && h("span", { class: "title id small muted" }, run.id),
        run.evaluated && h("span", { class: "small muted num" }, olderVerdict(run.evaluated)),
        run.status === "running" && h("div", { class: "bar", role: "progressbar", "aria-label": "Progress", "aria-valuenow": Math.round((100 * run.images_seen) / run.images) }, h("i", { style: { width: `${Math.min(100, (100 * run.images_seen) / run.images)}%` } })),
        h("div", { class: "meta small muted num" }, badge(run), h("span", { class: "grow" }, about(run)), h("span", {}, run.status === "running" || !run.changed_at ? "" : when(run.changed_at))),
        (failed > 0 || run.valid === false) && h("div", { class: "row" }, run.valid === false && gatesFailed(), run.failures.slice(0, 2).map((name) => h("span", { class: "badge fail" }, name))),
        run.error && h("p", { class: "small fail" }, run.error)),
      !run.error && h("label", { class: "pick", title: "Compare" }, pick));
    if (old && old.querySelector("img")?.src === element.querySelector("img")?.src) element.querySelector("img")?.replaceWith(old.querySelector("img"));
    return element;
  }

  function choose(id, isOn) {
    if (isOn && picked.size >= MOST) {
      toast(`${MOST} runs are compared at most; untick one first.`);
      return false;
    }
    isOn ? picked.add(id) : picked.delete(id);
    drawBar();
    return isOn;
  }

  function drawBar() {
    bar.hidden = !picked.size;
    clear(bar, picked.size === 1 ? "Choose another run to compare" : `${picked.size} runs`,
      picked.size > 1 && h("a", { class: "button", href: `/compare?runs=${[...picked].join(",")}` }, "Compare"),
      h("button", { class: "button", onclick: () => { picked.clear(); cards.clear(); bar.hidden = true; draw(); shelf.querySelector("a")?.focus(); } }, "Clear"));
  }

  function drawQueue(jobs) {
    const failed = jobs.filter((job) => job.state === "ended").slice(-2);
    const open = jobs.filter((job) => job.state !== "ended");
    renew(queue, [state.is_held, failed, open], () => [
      state.is_held && h("div", { class: "notice row" }, h("span", { class: "grow" }, "The queue is on hold: no training starts."), h("button", { onclick: () => act("/jobs/hold", { hold: false }) }, "Let it go on")),
      failed.map((job) => h("div", { class: "notice fail row" }, h("span", { class: "grow" }, h("strong", {}, job.title), ` ${job.command === "train" ? "did not start" : "failed"}: ${job.message}`), h("button", { onclick: () => act(`/jobs/${job.id}/stop`, {}) }, "Dismiss"))),
      open.map((job) => h("div", { class: "notice row" }, h("span", { class: "dot muted" }), h("strong", {}, job.title), state.runs.has(job.run) ? h("a", { href: `/runs/${job.run}` }, job.run) : h("span", { class: "muted" }, job.run),
        h("span", { class: "muted grow" }, job.state === "queued" ? "waits for its turn" : job.is_stopping ? "stops" : job.command === "evaluate" ? "is running" : "starts: loads its data, measures this machine"),
        !job.is_stopping && h("button", { onclick: () => act(`/jobs/${job.id}/stop`, {}) }, job.state === "queued" ? "Remove" : "Stop")))]);
    queue.style.marginBottom = queue.children.length ? "24px" : "0";
  }

  const act = (path, body) => api(path, { body }).catch(alarm);
  clear(shelf, Array.from({ length: 4 }, () => h("div", { class: "skeleton", style: { aspectRatio: "1" } })));
  return watch(draw);
}

// What its run does not say: that it waits, that it is an evaluation, that it could not be done.
const isTold = (job) => job.state === "queued" || job.command === "evaluate" || !state.runs.has(job.run) || (job.state === "ended" && job.command !== "train");

const about = (run) => {
  if (run.error) return "";
  if (run.status === "running") return run.seconds_left === null ? "starting" : `${Math.floor((100 * run.images_seen) / run.images)} % · ${duration(run.seconds_left)} left · ${count(run.images_per_s)}/s`;
  return `${count(run.images_seen)} images`;
};

export function badge(run) {
  const kind = { running: "live", failed: "fail", killed: "fail", unreadable: "fail" }[run.status] ?? "";
  return h("span", { class: `badge ${kind}` }, run.status === "running" && h("span", { class: "dot", style: { color: "var(--accent)" } }), run.status);
}

function first() {
  const button = h("button", { class: "primary wide" }, "Train on MNIST for three minutes");
  button.addEventListener("click", async () => {
    button.disabled = true;
    button.textContent = "Starting";
    try {
      const job = await api("/jobs", { body: { recipe: "default", data: "mnist", minutes: 3 } });
      toast(`${job.run} is on its way`);
    } catch (error) {
      alarm(error);
      button.disabled = false;
      button.textContent = "Train on MNIST for three minutes";
    }
  });
  return h("div", { class: "empty" }, h("h2", { class: "huge" }, "Nothing trained here yet"),
    h("p", {}, "Two networks learn together: one draws images, the other tells them from real ones. Three minutes on this machine are enough for digits."),
    button, h("a", { class: "button", href: "/new#data" }, "Use my own images"), h("p", { class: "small muted" }, "or drop a folder, a .zip or a .npz on this page"));
}
