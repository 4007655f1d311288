// Runs or checkpoints side by side, on the same latents and classes.
import { sayingOf, state, watch } from "./app.js";
import { draw as drawCharts, emptied, SERIES, smooth, tableOf } from "./charts.js";
import { api, clear, count, debounced, explained, gatesFailed, h, isNewest, keepFocus, latest, olderVerdict, parameters, python, quote, ratio, remember, same, sourceOf, term, tilesOf, toast, wholeSeed } from "./lib.js";

const MOST = 8;

// In the address: run, or run@checkpoint, with commas between.
const parse = (text) => (text ?? "").split(",").filter(Boolean).map((part) => ({ run: part.split("@")[0], checkpoint: part.split("@")[1] ?? "" }));
const write = (columns) => columns.map(({ run, checkpoint }) => (checkpoint ? `${run}@${checkpoint}` : run)).join(",");

export function render(main) {
  const asked = parse(parameters().get("runs"));
  const columns = asked.slice(0, MOST);
  if (asked.length > MOST) toast(`${MOST} columns at most: ${asked.length - MOST} more are left out.`);
  const details = new Map();
  const logs = new Map();
  const said = new Map(); // of each run, when its details were asked for
  const seed = h("input", { type: "number", min: 0, step: 1, value: wholeSeed(parameters().get("seed")), "aria-label": "Seed", style: { width: "112px" }, oninput: () => reseed(), onchange: () => { seed.value = wholeSeed(seed.value); } });
  const adder = h("select", { "aria-label": "Another run" });
  const adding = h("button", { type: "button", "aria-label": "Add the chosen run", onclick: () => { if (adder.value) add(adder.value); } }, "Add");
  const body = h("div", { class: "columns" });
  const differences = h("section", { class: "panel" });
  const chart = h("div", { class: "chart" });
  const figures = tableOf("images seen", () => chartRows(0));
  const curves = h("section", { class: "panel stack" }, h("div", { class: "row" }, h("h2", { class: "grow" }, "Curves"), figures.button), chart, figures.element);
  const lines = h("div", { class: "stack" });
  const rest = h("div", { class: "stack loose", style: { marginTop: "24px" } }, differences, curves, lines);
  main.append(h("div", { class: "page-head" }, h("h1", { class: "grow" }, "Compare"), h("label", { class: "row muted" }, term("seed", "seed"), seed), h("button", { onclick: () => { seed.value = Math.floor(Math.random() * 1e6); reseed(); } }, "New seed"), adder, adding), body, rest);

  function add(run) {
    adder.value = "";
    if (columns.length >= MOST) return toast(`${MOST} columns at most; remove one first.`);
    columns.push({ run, checkpoint: "" });
    changed();
  }

  function changed() {
    remember({ runs: write(columns) });
    fillAdder();
    draw();
  }

  function reseed() {
    remember({ seed: wholeSeed(seed.value) || "" });
    renewTiles();
    if (columns.length >= 2) drawLines();
  }

  // Of the columns that are shown, the samples.
  const renewTiles = debounced(() => { for (const tiles of body.querySelectorAll(".tiles")) drawTiles(tiles.column, tiles); });

  function fillAdder() {
    const runs = [...state.runs.values()].filter((run) => run.images_seen > 0 && !run.error);
    const wanted = runs.map((run) => run.id).join();
    if (adder.dataset.ids === wanted) return;
    const chosen = adder.value;
    adder.dataset.ids = wanted;
    clear(adder, h("option", { value: "" }, "another run"), runs.map((run) => h("option", { value: run.id }, run.id)));
    adder.value = runs.some((run) => run.id === chosen) ? chosen : "";
  }

  const draw = debounced(async () => {
    rest.hidden = columns.length < 2;
    if (!columns.length) return clear(body, h("div", { class: "empty" }, h("h2", {}, "Nothing to compare yet"), h("p", {}, "Add two runs, or one run twice with two checkpoints: all draw the same latents and classes."), h("a", { class: "button", href: "/" }, "Choose runs")));
    await Promise.all(columns.map(async ({ run }) => {
      if (details.has(run) && !details.get(run).error && said.has(run)) return;
      said.set(run, sayingOf(run));
      try {
        const [found, log] = [await api(`/runs/${run}`), await api(`/runs/${run}/log`)];
        details.set(run, found);
        logs.set(run, log);
      } catch (error) {
        details.set(run, { error: error.message, checkpoints: [], config: [] });
        logs.set(run, { log: [], metrics: [] });
      }
    }));
    if (!main.isConnected) return;
    keepFocus(body, () => clear(body, columns.map(column)));
    if (columns.length >= 2) {
      drawDifferences();
      drawCurves();
      drawLines();
    }
  });

  function drawLines() {
    const known = columns.filter(({ run }) => details.get(run).path);
    const sources = [...new Set(known.map(({ run, checkpoint }) => sourceOf(details.get(run).path, checkpoint)))];
    const isOpen = lines.querySelector("details")?.open ?? true;
    keepFocus(lines, () => clear(lines, same({
      terminal: `gansmith compare ${sources.map(quote).join(" ")} --seed ${wholeSeed(seed.value)}`,
      Python: `gs.compare(${sources.map(python).join(", ")}, seed=${wholeSeed(seed.value)})`,
    }, isOpen)));
  }

  function column(one, k) {
    const found = details.get(one.run);
    const tiles = Object.assign(h("div", { class: "tiles" }), { column: one });
    tiles.append(h("div", { class: "skeleton", style: { width: "200px", height: "200px" } }));
    const pick = h("select", { "aria-label": `Checkpoint of ${one.run}`, onchange: () => {
      one.checkpoint = pick.value;
      remember({ runs: write(columns) });
      drawScore();
      drawTiles(one, tiles);
      if (columns.length >= 2) drawLines();
    } }, h("option", { value: "" }, "newest checkpoint"), found.checkpoints.map((seen) => h("option", { value: seen, selected: String(seen) === one.checkpoint }, `${count(seen)} images${seen === found.best ? " ★" : ""}`)));
    const score = h("div", { class: "stack" });
    function drawScore() {
      const { value, name, key, note, isInvalid } = scoreOf(one, found, logs.get(one.run));
      clear(score, h("div", { class: "spread" }, h("span", { class: "huge" }, ratio(value)), isInvalid && gatesFailed(), term(name, key)), h("p", { class: "small muted", style: { minHeight: "64px" } }, note)); // four lines, so that images of one latent lie in one row
    }
    drawScore();
    const element = h("article", { class: "stack" },
      h("div", { class: "row" }, h("span", { class: "dot", style: { color: hueOf(one.run), width: "12px", height: "12px" } }), h("h2", { class: "grow", style: { overflowWrap: "anywhere" } }, h("a", { href: `/runs/${one.run}` }, one.run)),
        k > 0 && h("button", { class: "quiet icon", "aria-label": "Move left", onclick: () => { columns.splice(k - 1, 0, ...columns.splice(k, 1)); changed(); } }, "←"),
        h("button", { class: "quiet icon", "aria-label": `Remove ${one.run}`, onclick: () => { columns.splice(k, 1); changed(); } }, "×")),
      found.error ? h("p", { class: "fail" }, found.error, " ", h("button", { class: "small", onclick: () => draw() }, "Try again")) : h("div", { class: "stack" }, score, pick, tiles));
    if (!found.error) drawTiles(one, tiles);
    return element;
  }

  async function drawTiles(one, tiles) {
    tiles.asking ??= latest();
    const signal = tiles.asking();
    const query = new URLSearchParams({ seed: wholeSeed(seed.value), count: 25 });
    if (one.checkpoint) query.set("checkpoint", one.checkpoint);
    try {
      const model = await api(`/runs/${one.run}/generator${one.checkpoint ? `?checkpoint=${one.checkpoint}` : ""}`, { signal });
      if (model.labels.length && model.labels.length <= 12) query.set("labels", model.labels.slice(0, 5).map(({ label }) => `${label}-${label}`).join(","));
      const answer = await api(`/runs/${one.run}/sample?${query}`, { signal });
      const pictures = await tilesOf(answer);
      if (signal.aborted) return;
      const room = Math.min(tiles.parentNode.clientWidth || 280, 560);
      const side = Math.max(1, Math.floor((room - 8) / 5 / answer.size)) * answer.size;
      tiles.style.gridTemplateColumns = `repeat(${answer.columns}, minmax(0, ${side}px))`;
      clear(tiles, pictures.map((picture, k) => h("div", { class: "tile", title: answer.tiles[k].name ?? "" }, picture)));
      tiles.setAttribute("role", "img");
      tiles.setAttribute("aria-label", `25 samples of ${one.run}, seed ${wholeSeed(seed.value)}`);
    } catch (error) {
      if (!signal.aborted) clear(tiles, h("p", { class: "fail", style: { background: "var(--surface)", padding: "8px" } }, error.message));
    }
  }

  function drawDifferences() {
    const names = [...new Set(columns.map(({ run }) => run))].filter((run) => !details.get(run).error);
    differences.hidden = names.length < 2;
    if (differences.hidden) return;
    const rows = details.get(names[0]).config.map((row, k) => ({ row, values: names.map((name) => details.get(name).config[k]?.value) })).filter(({ values }) => new Set(values.map(String)).size > 1);
    clear(differences, h("h2", {}, "Choices that differ"), rows.length
      ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Choices that differ" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "choice"), names.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, rows.map(({ row, values }) => h("tr", {}, h("td", {}, explained("span", row.help, "mono", row.name)), values.map((value) => h("td", { class: "mono" }, String(value) !== String(values[0]) ? h("strong", {}, String(value)) : String(value))))))))
      : h("p", { class: "muted" }, "None: these were trained with the same choices."));
  }

  const hueOf = (name) => SERIES[[...new Set(columns.map(({ run }) => run))].indexOf(name) % SERIES.length];

  function chartRows(strength) {
    const names = [...new Set(columns.map(({ run }) => run))];
    const hues = names.map(hueOf);
    const traces = names.map((name, k) => {
      const scores = logs.get(name).metrics.filter((row) => row.validation_fd_ratio);
      return { name, x: scores.map((row) => row.images_seen), y: scores.map((row) => row.validation_fd_ratio), color: hues[k], dash: ["solid", "dash", "dot", "dashdot"][k % 4], mode: "lines+markers" };
    });
    const losses = (key) => names.map((name, k) => {
      const log = logs.get(name).log.filter((row) => !row.kind);
      return { name, x: log.map((row) => row.images_seen), y: smooth(log.map((row) => row[key] ?? null), strength), color: hues[k], dash: ["solid", "dash", "dot", "dashdot"][k % 4] };
    });
    return [{ title: "validation FD ratio", log: true, traces }, { title: "D loss", traces: losses("d_loss") }, { title: "G loss", traces: losses("g_loss") }];
  }

  function drawCurves() {
    if (columns.length < 2 || !columns.every(({ run }) => logs.has(run))) return; // they are still asked for
    figures.draw();
    drawCharts(chart, chartRows(0.8)).catch((error) => clear(chart, h("p", { class: "muted" }, error.message)));
  }

  // A run that was trained or evaluated on is asked for again, so that its score is that of its images.
  function renewRuns() {
    for (const [run, text] of said) if (text === null) said.set(run, sayingOf(run));
    const changed = [...said.keys()].filter((run) => state.runs.has(run) && sayingOf(run) !== said.get(run));
    for (const run of changed) said.delete(run);
    if (changed.length) draw();
  }

  const unwatch = watch(() => {
    fillAdder();
    renewRuns();
  });
  draw();
  addEventListener("themechange", drawCurves);
  return () => { unwatch(); removeEventListener("themechange", drawCurves); emptied(chart); };
}

// The score of the column's checkpoint where there is one, else the run's newest.
function scoreOf(one, found, logs) {
  const scores = (logs?.metrics ?? []).filter((row) => row.validation_fd_ratio);
  const wanted = one.checkpoint ? Number(one.checkpoint) : null;
  const isJudged = wanted === null ? isNewest(found.verdict, scores.at(-1)) : found.verdict?.images_seen === wanted;
  if (isJudged) return { value: found.verdict.fd_ratio, name: "FD ratio", key: "fd_ratio", note: found.verdict.headline, isInvalid: found.verdict.valid === false };
  const row = wanted === null ? scores.at(-1) : scores.find((score) => score.images_seen === wanted);
  return { value: row?.validation_fd_ratio, name: "validation FD ratio", key: "validation_fd_ratio", note: row ? `of ${count(row.images_seen)} images; 1.00 = as close as other real images${found.verdict ? `; ${olderVerdict(found.verdict)}` : ""}` : "this checkpoint was not scored" };
}
