// A run: its samples through training, its curves, what went wrong, its choices.
import { followRun, sayingOf, state, watch } from "./app.js";
import { color, draw as drawCharts, emptied, moveCursor, SERIES, smooth, tableOf } from "./charts.js";
import { alarm, api, clear, code, count, debounced, download, duration, explained, figure, gatesFailed, h, isNewest, MEANINGS, olderVerdict, parameters, python, quote, ratio, remember, renew, same, say, term, toast, url } from "./lib.js";
import { badge } from "./runs.js";

const MOST_POINTS = 3000; // of a line
const LOG_ROWS = 200; // the newest; log.jsonl has all
const LOG_COLUMNS = ["images_seen", "d_loss", "g_loss", "d_real", "d_fake", "g_grad_norm", "d_grad_norm", "images_per_s", "elapsed_s"];
const FEWEST = 1000; // images of which an FD ratio says how good samples are
const EXPLAINED = [["D loss", "d_loss"], ["G loss", "g_loss"], ["validation FD ratio", "validation_fd_ratio"], ["D(real)", "d_real"], ["D(fake)", "d_fake"], ["gradient norm of D", "d_grad_norm"], ["gradient norm of G", "g_grad_norm"], ["images/s", "images_per_s"]];

export async function render(main, id) {
  const live = { log: [], scores: [], failures: [], grids: [], checkpoints: [], version: 0, state: {}, best: null, gone: "" };
  let details = await begun(main, id);
  if (!main.isConnected) return;  // another page was opened
  document.title = `${id} · Gansmith studio`;
  const film = makeFilm(id, live, (x) => moveCharts(x));
  const about = h("div", { class: "row muted" });
  const progress = h("div");
  const head = h("div", { class: "page-head" }, h("div", { class: "grow" }, h("h1", { style: { overflowWrap: "anywhere" } }, id), about),
    h("a", { class: "button", href: `/explore/${id}` }, "Explore"), h("a", { class: "button", href: `/compare?runs=${id}` }, "Compare"));
  const verdict = h("section", { class: "panel stack", "aria-label": "Verdict" });
  const actions = h("div", { class: "row" });
  const failures = h("section", { class: "stack" });
  const chart = h("div", { class: "chart", onpointerleave: () => film.endPeek() });
  const curves = h("section", { class: "panel", "aria-label": "Curves" });
  const [share, choices, commands, kept] = Array.from({ length: 4 }, () => h("div"));
  const rows = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Log", style: { maxHeight: "320px" } });
  const log = h("details", { class: "panel", ontoggle: () => drawLog() }, h("summary", {}, "Log"), rows);
  const below = h("div", { class: "below stack" }, share, choices, commands, log, kept);
  main.append(head, h("div", { class: "run" }, h("div", { class: "film stack loose" }, film.element, failures), h("div", { class: "side stack" }, actions, progress, verdict, curves), below));

  const strength = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: parameters().get("smooth") ?? 0.6, "aria-label": "Smoothing", oninput: () => { remember({ smooth: strength.value }); redraw(); } });
  const others = h("select", { "aria-label": "Lay another run over the curves" });
  const add = h("button", { type: "button", "aria-label": "Add the chosen run", onclick: () => others.value && overlay(others.value) }, "Add"); // a select alone acts on the first arrow key
  const chips = h("div", { class: "row" });
  const overlays = new Map();
  const figures = tableOf("images seen", () => chartRows(0));
  clear(curves, h("div", { class: "row" }, h("h2", { class: "grow" }, "Curves"), figures.button),
    h("div", { class: "row small muted" }, h("span", {}, "smoothing"), h("span", { style: { width: "96px" } }, strength), others, add), chips, chart, figures.element,
    h("details", { class: "small muted" }, h("summary", {}, "What these mean"), h("ul", { style: { paddingLeft: "16px" } }, EXPLAINED.map(([name, key]) => h("li", {}, h("strong", {}, name), ": ", MEANINGS[key])))));

  async function overlay(other) {
    const said = sayingOf(other);
    overlays.set(other, { log: [], metrics: [], ...overlays.get(other), said }); // until they are here
    drawOverlays();
    const found = await api(`/runs/${other}/log`).catch((error) => alarm(error));
    if (!overlays.has(other) || !main.isConnected) return; // removed meanwhile, or another page was opened
    found ? overlays.set(other, { ...found, said }) : overlays.delete(other);
    drawOverlays();
  }
  function renewOverlays() {
    for (const [other, found] of overlays) {
      found.said ??= sayingOf(other);
      if (state.runs.has(other) && sayingOf(other) !== found.said) overlay(other);
    }
  }

  function drawOthers() {
    const chosen = others.value;
    const wanted = [...state.runs.keys()].filter((other) => other !== id && !overlays.has(other));
    renew(others, wanted, () => [h("option", { value: "" }, "add a run"), wanted.map((other) => h("option", { value: other }, other))]);
    others.value = wanted.includes(chosen) ? chosen : ""; // the overview comes every second
  }

  function drawOverlays() {
    const names = [...overlays.keys()];
    drawOthers();
    renew(chips, names, () => names.map((other, k) => h("button", { class: "chip", "aria-label": `Remove ${other} from the curves`, onclick: () => { overlays.delete(other); drawOverlays(); } },
      h("span", { class: "dot", style: { color: overlayColor(k) } }), other, h("span", { "aria-hidden": "true" }, "×"))));
    remember({ over: names.join(",") });
    redraw();
  }

  function chartRows(strength) {
    const x = thin(live.log.map((row) => row.images_seen));
    const line = (key, name, hue, dash) => ({ name, x, y: thin(smooth(live.log.map((row) => row[key] ?? null), strength)), color: color(hue), dash });
    const rows = [
      { title: "losses", traces: [line("d_loss", "D", "d"), line("g_loss", "G", "g", "dash")] },
      { title: "validation FD ratio", log: true, traces: [{ name: overlays.size ? id : "validation FD ratio", x: live.scores.map((row) => row.images_seen), y: live.scores.map((row) => row.validation_fd_ratio), color: color("score"), mode: "lines+markers" }] },
      { title: "D(real), D(fake)", traces: [line("d_real", "D(real)", "d"), line("d_fake", "D(fake)", "g", "dash")] },
      { title: "gradient norms", log: true, traces: [line("d_grad_norm", "D", "d"), line("g_grad_norm", "G", "g", "dash")] },
      { title: "images/s", traces: [line("images_per_s", "images/s", "muted")] },
    ];
    [...overlays].forEach(([name, found], k) => addOverlay(rows, name, found, overlayColor(k), strength));
    return rows.filter((row) => row.traces.some((trace) => trace.y.some((value) => value !== null && value !== undefined)));
  }

  const hasEnded = () => !["running", "unknown", undefined].includes(live.state.status);
  const marks = () => live.failures.filter((row) => row.failure).map((row) => row.images_seen);
  const redraw = debounced(async () => {
    const rows = chartRows(+strength.value);
    if (!rows.length) return clear(emptied(chart), h("p", { class: "muted" }, hasEnded() ? "The run ended before its first figures." : "The first figures come after a few steps."));
    if (chart.firstChild?.nodeName === "P") clear(chart);
    await drawCharts(chart, rows, { cursor: film.at(), marks: marks(), onHover: film.peek, onClick: film.showNear, length: Math.max(live.state.images ?? 0, live.state.images_seen ?? 0, ...[...overlays.values()].map(({ log }) => log.at(-1)?.images_seen ?? 0)) }).catch((error) => clear(chart, h("p", { class: "muted" }, error.message)));
    figures.draw();
  });
  const moveCharts = debounced((x) => moveCursor(chart, x, marks().length));

  function drawHead() {
    const now = { ...details, ...live.state };
    clear(about, badge(now), h("span", {}, `${details.recipe} on ${details.data}`),
      h("span", { class: "num" }, `${count(now.images_seen)} of ${count(now.images)} images`),
      now.status === "running" && h("span", { class: "num" }, now.seconds_left === null ? "" : `${duration(now.seconds_left)} left · ${count(now.images_per_s)} images/s`));
    const share = Math.min(100, (100 * now.images_seen) / now.images);
    clear(progress, now.status === "running" && h("div", { class: "bar grow", role: "progressbar", "aria-label": "Progress", "aria-valuenow": Math.round(share) }, h("i", { style: { width: `${share}%` } })));
    renew(actions, [live.gone, now.status, now.images_seen >= now.images, jobOf(id), failedOf(id), state.isKnown], () => (live.gone ? h("p", { class: "notice fail grow" }, live.gone) : buttons(id, now)));
  }

  function drawVerdict() {
    const last = live.scores.at(-1);
    const found = details.verdict;
    const isJudged = isNewest(found, last);
    const shown = isJudged ? found.fd_ratio : last?.validation_fd_ratio;
    renew(verdict, [found, last, live.scores.length, hasEnded()], () => [
      h("div", { class: "spread" }, h("span", { class: "huge" }, ratio(shown)), isJudged && found.valid === false && gatesFailed(), term(isJudged ? "FD ratio" : "validation FD ratio", isJudged ? "fd_ratio" : "validation_fd_ratio")),
      h("p", { class: "small muted" }, isJudged ? found.headline : last ? `1.00 = as close as other real images. ${ratio(last.validation_fd_ratio)} of ${count(last.images_seen)} images; best ${ratio(Math.min(...live.scores.map((row) => row.validation_fd_ratio)))}.` : hasEnded() ? "No score: the run ended before its first one." : "No score yet: the first one comes during training."),
      !isJudged && last?.n < FEWEST && h("p", { class: "small muted" }, `${count(last.n)} images are too few: the FD ratio shows a trend, not how good samples are.`),
      found && !isJudged && h("p", { class: "small muted num" }, olderVerdict(found)),
      found && h("div", { class: "gates" }, found.gates.map((gate) => explained("span", gate.figure, gate.result === "pass" ? "good" : gate.result === "FAIL" ? "fail" : "muted", h("span", { class: "dot" }), `${gate.name} ${gate.result === "FAIL" ? "failed" : gate.result === "pass" ? "" : "not run"}`))),
      !found && shown !== undefined && h("p", { class: "small muted" }, "Gates (memorisation, coverage, classes) are checked by ", h("code", {}, `gansmith evaluate ${quote(details.path)}`), "."),
    ]);
  }

  function drawFailures() {
    const { status } = live.state;
    const reason = status === "failed" ? live.state.reason : status === "killed" && (endOf(id) ?? "its process was killed, or its machine went down");
    renew(failures, [reason, live.failures], () => [status === "killed" && h("div", { class: "notice fail" }, h("h2", {}, "The run ended before its time"), h("p", {}, `${reason[0].toUpperCase()}${reason.slice(1)}. Resume goes on from its newest checkpoint.`)), status === "failed" && reason && h("div", { class: "notice fail" }, h("h2", {}, "The run stopped by itself"), h("p", {}, reason)),
      live.failures.map((row) => h("div", { class: "notice fail" }, h("div", { class: "spread" }, h("h2", {}, row.kind === "rollback" ? "Went back" : row.failure), h("button", { class: "quiet", onclick: () => film.showNear(row.images_seen) }, `at ${count(row.images_seen)} images`)), h("p", {}, row.failure && row.message.startsWith(`${row.failure}: `) ? row.message.slice(row.failure.length + 2) : row.message)))]);
  }

  function drawLog() {
    if (!log.open) return;
    const told = [...live.log, ...live.failures].sort((a, b) => b.images_seen - a.images_seen).slice(0, LOG_ROWS);
    const columns = LOG_COLUMNS.filter((key) => told.some((row) => row[key] !== undefined));
    renew(rows, [told.length, told[0], live.version], () => [h("table", {}, h("thead", {}, h("tr", {}, columns.map((key) => h("th", { class: "num", scope: "col" }, key.replaceAll("_", " "))))),
      h("tbody", {}, told.map((row) => (row.kind ? h("tr", { class: "fail" }, h("td", { class: "num" }, count(row.images_seen)), h("td", { colspan: columns.length - 1 }, row.message)) : h("tr", {}, columns.map((key) => h("td", { class: "num" }, figure(row[key]))))))))]);
  }

  function drawBelow() {
    const isEmpty = !details.checkpoints.length && !live.checkpoints.length;
    renew(share, [isEmpty, isEmpty && details.status], () => sharing(id, details, isEmpty));
    renew(choices, details.config, () => configTable(details));
    renew(commands, details.commands, () => lines(details));
    renew(kept, [details.files, details.notices, details.facts], () => files(id, details, kept.querySelector("details")?.open));
  }

  const stop = followRun(id, {
    news(news) {
      live.gone = "";
      if (news.reset) Object.assign(live, { log: [], scores: [], failures: [], grids: [], checkpoints: [], version: live.version + 1 });
      for (const row of news.log ?? []) (row.kind ? live.failures : live.log).push(row);
      for (const row of news.metrics ?? []) if (row.validation_fd_ratio !== undefined && row.validation_fd_ratio !== null) live.scores.push(row);
      live.grids.push(...(news.grids ?? []));
      live.checkpoints.push(...(news.checkpoints ?? []));
      drawBelow();
      const before = live.state.status;
      const newFailure = before && (news.log ?? []).findLast((row) => row.kind === "failure" || row.kind === "rollback");
      if (news.state) Object.assign(live, { state: news.state, best: news.state.best });
      const isEvaluated = (news.metrics ?? []).some((row) => row.tier !== "validation");
      if (isEvaluated || (news.state && before && before !== news.state.status)) api(`/runs/${id}`).then((found) => { details = found; drawVerdict(); drawBelow(); }, () => {});
      if (newFailure) say(`${newFailure.failure ?? newFailure.kind} at ${count(newFailure.images_seen)} images`);
      if (news.state && before && before !== news.state.status) say(`${id}: ${news.state.status}`);
      film.update(news.grids?.length > 0 || news.reset, news.reset);
      drawHead();
      drawVerdict();
      if (news.log || news.reset || news.state) drawFailures();
      drawLog();
      redraw();
    },
    unreadable(news) {
      live.gone = news.message; // until it can be read again
      drawHead();
    },
    gone(news) {
      live.gone = news.message;
      live.state.status = "gone";
      stop();
      drawHead();
    },
  });
  for (const other of (parameters().get("over") ?? "").split(",").filter(Boolean)) overlay(other);
  const unwatch = watch(() => {
    drawHead();
    drawOthers();
    renewOverlays();
    if (live.state.status === "killed") drawFailures(); // its job may say later why it ended
  });
  drawHead();
  drawVerdict();
  drawBelow();
  addEventListener("themechange", redraw);
  return () => { stop(); unwatch(); film.close(); removeEventListener("themechange", redraw); emptied(chart); };
}

// Of very many points as many as a screen can show, the newest among them.
function thin(values) {
  const step = Math.ceil(values.length / MOST_POINTS);
  return step > 1 ? values.filter((_, k) => (values.length - 1 - k) % step === 0) : values;
}

const overlayColor = (k) => SERIES[(k + 3) % SERIES.length];

function addOverlay(rows, name, found, hue, strength) {
  const log = found.log.filter((row) => !row.kind);
  const scores = found.metrics.filter((row) => row.validation_fd_ratio);
  const line = (key, label, dash) => ({ name: `${name}: ${label}`, x: thin(log.map((row) => row.images_seen)), y: thin(smooth(log.map((row) => row[key] ?? null), strength)), color: hue, dash });
  rows[0].traces.push(line("d_loss", "D"), line("g_loss", "G", "dash"));
  rows[1].traces.push({ name, x: scores.map((row) => row.images_seen), y: scores.map((row) => row.validation_fd_ratio), color: hue, mode: "lines+markers", symbol: "square" });
  rows[2].traces.push(line("d_real", "D(real)"), line("d_fake", "D(fake)", "dash"));
  rows[3].traces.push(line("d_grad_norm", "D"), line("g_grad_norm", "G", "dash"));
  rows[4].traces.push(line("images_per_s", "images/s"));
}

function makeFilm(id, live, onMove) {
  let place = -1; // -1: the newest
  let timer = 0;
  let asked = Number(parameters().get("frame") || NaN); // until it was shown
  const image = h("img", { class: "pixels", alt: "" });
  let before = null; // the place, while the curves are pointed at
  const stage = h("div", { class: "ground stage" }, h("p", { class: "muted" }, "The first samples come after a moment."));
  const slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Training frame", oninput: () => { pause(); show(+slider.value); } });
  const marks = h("div", { class: "marks", "aria-hidden": "true" });
  const caption = h("span", { class: "num muted" });
  const play = h("button", { class: "icon", "aria-label": "Play", onclick: () => (timer ? pause() : start()) }, "▶");
  const speed = h("select", { "aria-label": "Speed" }, [1, 2, 4, 8].map((times) => h("option", { value: times }, `${times}×`)));
  const save = h("a", { class: "button", download: "", "aria-label": "Save this frame as PNG" }, "PNG");
  const element = h("section", { class: "stack", "aria-label": "Samples through training" }, stage,
    h("div", { class: "timeline" }, marks, slider), h("div", { class: "row" }, play, speed, caption, h("span", { class: "grow" }), save, h("button", { "aria-label": "Save the training as a film", onclick: shared(id, "film.gif") }, "GIF")));

  image.addEventListener("load", fit);
  const observer = new ResizeObserver(fit);
  observer.observe(stage);
  // Whole pixels: the largest whole multiple that fits.
  function fit() {
    if (!image.naturalWidth) return;
    const times = Math.floor(Math.min((stage.clientWidth - 32) / image.naturalWidth, Math.max(320, innerHeight - 260) / image.naturalHeight));
    image.style.width = times >= 1 ? `${times * image.naturalWidth}px` : "100%";
  }

  // After a rollback other grids have the same names, which a page would not ask for again.
  const sourceAt = (frame) => url(`/runs/${id}/grids/${frame}?version=${live.version}`);

  function show(k, isQuiet) {
    const frames = live.grids;
    if (!frames.length) return;
    const at = Math.max(0, Math.min(frames.length - 1, k));
    place = at === frames.length - 1 ? -1 : at;
    slider.value = at;
    const source = sourceAt(frames[at]);
    if (!image.src.endsWith(source)) {
      image.src = source;
      image.classList.remove("frame-in");
      if (!timer) { void image.offsetWidth; image.classList.add("frame-in"); }
    }
    image.alt = `Sample grid of ${id} after ${frames[at]} images`;
    if (image.parentNode !== stage) clear(stage, image);
    save.href = source;
    save.download = `${id}-${frames[at]}.png`;
    clear(caption, `${count(frames[at])} images seen`, live.best === frames[at] && h("span", { class: "good" }, "  ★ best"));
    slider.setAttribute("aria-valuetext", `${frames[at]} images seen`);
    if (!isQuiet) {
      before = null; // what is chosen stays
      asked = NaN;
      remember({ frame: place === -1 ? "" : frames[at] });
      onMove(frames[at]);
    }
    for (const next of [at + 1, at + 2]) if (frames[next] !== undefined) new Image().src = sourceAt(frames[next]);
  }

  function nearest(seen) {
    const distance = (frame) => Math.abs(frame - seen);
    return live.grids.reduce((found, frame, k) => (distance(frame) < distance(live.grids[found]) ? k : found), 0);
  }

  function start() {
    before = null;
    play.textContent = "❚❚";
    play.setAttribute("aria-label", "Pause");
    if (+slider.value >= live.grids.length - 1) show(0);
    const step = () => {
      if (+slider.value >= live.grids.length - 1) return pause();
      show(+slider.value + 1);
      timer = setTimeout(step, 400 / speed.value);
    };
    timer = setTimeout(step, 400 / speed.value);
  }
  function pause() {
    clearTimeout(timer);
    timer = 0;
    play.textContent = "▶";
    play.setAttribute("aria-label", "Play");
  }
  const keys = (event) => {
    if (event.target.closest("input, select, textarea, dialog, button, a, summary, code, .scroll") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") { event.preventDefault(); timer ? pause() : start(); }
    if (event.key === "ArrowLeft") show(+slider.value - 1);
    if (event.key === "ArrowRight") show(+slider.value + 1);
  };
  document.addEventListener("keydown", keys);

  function update(isNew, isReset) {
    const frames = live.grids;
    if (isReset) { pause(); place = -1; } // frames of a course that was given up are gone
    if (!frames.length) return;
    slider.max = frames.length - 1;
    const share = (seen) => {
      const k = frames.findIndex((frame) => frame >= seen);
      if (k <= 0) return k < 0 ? 100 : 0;
      return (100 * (k - 1 + (seen - frames[k - 1]) / (frames[k] - frames[k - 1]))) / Math.max(1, frames.length - 1);
    };
    clear(marks, frames.map((frame) => h("i", { style: { left: `${share(frame)}%` } })),
      live.failures.map((row) => h("i", { class: "failure", style: { left: `${share(row.images_seen)}%` }, title: row.failure })),
      live.best !== null && live.best !== undefined && h("b", { style: { left: `${share(live.best)}%` } }, "★"));
    if (isNew && place === -1 && !timer && before === null) {
      const wanted = frames.indexOf(asked);
      show(wanted >= 0 ? wanted : frames.length - 1, wanted < 0);
    }
  }

  return {
    element, update,
    at: () => live.grids[+slider.value] ?? null,
    showNear(seen) {
      before = null;
      pause();
      show(nearest(seen));
    },
    // While the curves are pointed at, the frame of that place; then what was shown before, and the newest where that was followed.
    peek(seen) {
      if (timer || !live.grids.length) return;
      before ??= place;
      show(nearest(seen), true);
    },
    endPeek() {
      if (before !== null) show(before < 0 ? live.grids.length - 1 : before, true);
      before = null;
    },
    close() { pause(); observer.disconnect(); document.removeEventListener("keydown", keys); },
  };
}

// What is known of a run; one that waits in the queue, or reads its data, is waited for.
async function begun(main, id) {
  for (let waits = 0; ; waits++) {
    try {
      const found = await api(`/runs/${id}`);
      if (waits) clear(main);
      return found;
    } catch (error) {
      if (error.kind !== "NotBegun" || (waits && !main.isConnected)) throw error;
      clear(main, h("div", { class: "empty", role: "status" }, h("h2", {}, id), h("p", {}, error.message)));
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

const endOf = (id) => state.jobs.findLast((one) => one.run === id && one.state === "ended" && one.command !== "evaluate" && one.message)?.message;
const jobOf = (id) => state.jobs.find((one) => one.run === id && one.state !== "ended");
const failedOf = (id) => state.jobs.findLast((one) => one.run === id && one.state === "ended" && one.command !== "train");

function buttons(id, now) {
  const act = (path, body, done) => async ({ target }) => {
    if (target.ariaBusy) return;
    target.ariaBusy = "true"; // a button that is disabled loses the focus
    const said = typeof done === "function" ? done() : done; // as the queue is now
    try {
      await api(path, { body });
      toast(said);
    } catch (error) {
      alarm(error);
    }
    target.ariaBusy = null;
  };
  const job = jobOf(id);
  const again = h("a", { class: "button", href: `/new?from=${id}` }, "Duplicate");
  if (now.status === "running") {
    if (job?.is_stopping) return [h("span", { class: "badge" }, "saves, then stops"), again];
    if (!job && state.isKnown) return [h("span", { class: "badge live" }, "trained by another program"), again];
    return [h("button", { onclick: act(`/runs/${id}/stop`, { hold: true }, "It saves, then pauses; the queue waits.") }, "Pause"),
      h("button", { class: "danger", onclick: act(`/runs/${id}/stop`, { hold: false }, "It saves, then stops.") }, "Stop"), again];
  }
  if (job?.is_stopping) return [h("span", { class: "badge" }, job.title, ": stops"), again];
  if (job) return [h("span", { class: "badge live" }, job.title, job.state === "queued" ? ": waits for its turn" : ""), h("button", { onclick: act(`/jobs/${job.id}/stop`, {}, "It is cancelled.") }, "Cancel"), again];
  const failed = failedOf(id);
  const isDone = now.images_seen >= now.images;
  const minutes = h("select", { "aria-label": "Minutes more" }, [1, 3, 10, 30].map((many) => h("option", { value: many, selected: many === 3 }, `${many} min`)));
  return [
    failed && h("div", { class: "notice fail row", style: { flex: "1 1 100%" } }, h("span", { class: "grow" }, `${failed.command === "evaluate" ? "The evaluation" : "Going on"} failed: ${failed.message}`), h("button", { onclick: act(`/jobs/${failed.id}/stop`, {}, "It is taken off the list.") }, "Dismiss")),
    (!isDone || now.status === "killed") && h("button", { class: "primary", onclick: act(`/runs/${id}/resume`, {}, () => (state.jobs.some((one) => one.state !== "ended") ? "It waits for its turn." : "It goes on where it was.")) }, "Resume"),
    h("span", { class: "row" }, h("button", { onclick: (event) => act(`/runs/${id}/resume`, { minutes: +minutes.value }, "It goes on.")(event) }, "Extend by"), minutes), again,
    h("button", { title: "FD ratio and gates on 2,000 samples", onclick: act(`/runs/${id}/evaluate`, { quick: true }, "It is being evaluated.") }, "Evaluate"),
  ];
}

function configTable(details) {
  const body = h("tbody");
  const all = h("input", { type: "checkbox", onchange: () => draw() });
  const search = h("input", { type: "search", placeholder: "Search choices", "aria-label": "Search choices", oninput: () => draw() });
  function draw() {
    const word = search.value.toLowerCase();
    const rows = details.config.filter((row) => (all.checked || word || row.origin !== "default") && `${row.name} ${row.help}`.toLowerCase().includes(word));
    clear(body, rows.map((row) => h("tr", {}, h("td", { class: "mono" }, row.is_changed ? h("strong", {}, row.name) : row.name),
      h("td", { class: "mono" }, row.is_changed ? h("strong", {}, String(row.value)) : String(row.value)), h("td", { class: "muted" }, row.origin), h("td", { class: "muted" }, row.help))));
  }
  draw();
  return h("details", { class: "panel", open: true }, h("summary", {}, "Choices"),
    h("div", { class: "row", style: { marginBottom: "8px" } }, search, h("label", { class: "check small" }, all, "also defaults"), h("span", { class: "muted small" }, "bold: not the recipe's")),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Choices" }, h("table", {}, h("thead", {}, h("tr", {}, ["choice", "value", "from", "meaning"].map((name) => h("th", { scope: "col" }, name)))), body)));
}

function lines(details) {
  const [word, text] = [quote(details.path), python(details.path)];
  return same({
    "terminal: train": details.commands.terminal, "Python: train": details.commands.python,
    "terminal: resume": `gansmith resume ${word}`, "Python: resume": `gs.resume(${text})`,
    "terminal: evaluate": `gansmith evaluate ${word}`, "Python: evaluate": `gs.evaluate(${text})`, "Python: open": `gs.open_run(${text})`,
  });
}

// What a button does that makes a file and saves it, and gives that up when it is pressed again: exports are read back and compared, so they take seconds.
const shared = (id, name) => async (event) => {
  const button = event.target.closest("button");
  if (button.asking) return button.asking.abort();
  button.asking = new AbortController();
  const [text, label] = [button.textContent, button.getAttribute("aria-label")];
  button.textContent = "Cancel";
  button.setAttribute("aria-label", `Cancel ${name}`);
  say(`${name} is being made`);
  await download(`/runs/${id}/share/${name}`, { name: `${id}-${name}`, signal: button.asking.signal });
  button.asking = null;
  button.textContent = text;
  label === null ? button.removeAttribute("aria-label") : button.setAttribute("aria-label", label);
};

function sharing(id, details, isEmpty) {
  return h("section", { class: "panel stack", "aria-label": "Share" }, h("h2", {}, "Share"),
    isEmpty ? h("p", { class: "muted" }, details.status === "failed" ? "The run ended before its first checkpoint." : "Nothing is saved yet: wait for the first checkpoint.") : h("ul", { class: "shares" }, Object.entries(details.shares).map(([name, meaning]) => h("li", {}, h("button", { onclick: shared(id, name) }, name), h("span", { class: "muted small" }, meaning)))));
}

function files(id, details, isOpen) {
  const facts = details.facts;
  return h("details", { class: "panel", open: isOpen }, h("summary", {}, "Files, data, machine"), h("div", { class: "stack" },
    h("ul", { class: "row" }, Object.entries(details.files).map(([name, size]) => h("li", { style: { listStyle: "none" } }, h("a", { class: "button", href: url(`/runs/${id}/files/${name}`), target: "_blank", rel: "noopener" }, name, h("span", { class: "muted small num" }, ` ${count(size / 1000)} kB`))))),
    details.notices.map((notice) => h("p", { class: "muted" }, notice)),
    details.command && h("div", {}, h("p", { class: "small muted" }, "started by"), code(details.command, "the command that started it")),
    h("p", { class: "muted small" }, [facts.data?.source && `data from ${facts.data.source}`, facts.python && `Python ${facts.python}`, ...Object.entries(facts.versions ?? {}).map(([name, version]) => `${name} ${version}`)].filter(Boolean).join(" · "))));
}
