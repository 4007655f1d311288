// Sampling a generator: tiles by seed and class, pins, walks, words, classes by styles, nearest training images.
import { go, state, watch } from "./app.js";
import { api, clear, count, debounced, download, h, inputsOf, keepFocus, latest, oops, parameters, python, quote, remember, replaceCards, same, savingButton, sourceOf, term, tilesOf, toast, url, wholeSeed } from "./lib.js";
import { drawing, sliders } from "./latents.js";

export async function render(main, id) {
  if (!id) return choose(main);
  const found = await api(`/runs/${id}`);
  if (!main.isConnected) return;  // another page was opened
  document.title = `Explore ${id} · Gansmith studio`;
  if (!found.checkpoints.length) {
    main.append(h("div", { class: "empty" }, h("h2", {}, "Nothing to explore yet"), h("p", {}, `${id} has no checkpoint; let it train until its first save.`), h("a", { class: "button", href: `/runs/${id}` }, "Watch it")));
    return;
  }
  const view = makeView(id, found);
  main.append(view.head, view.body);
  await view.open();
  return view.close;
}

function choose(main) {
  const shelf = h("div", { class: "cards" });
  main.append(h("div", { class: "page-head" }, h("h1", {}, "Explore"), h("p", { class: "muted" }, "Choose a run whose generator you want to draw with.")), shelf);
  return watch(() => {
    const runs = [...state.runs.values()].filter((run) => run.images_seen > 0 && !run.error).sort((a, b) => b.changed_at - a.changed_at);
    const shown = JSON.stringify(runs.map((run) => [run.id, run.grid]));
    if (shelf.shown === shown) return;
    shelf.shown = shown;
    const cards = runs.map((run) => h("article", { class: "card", "data-run": run.id }, h("a", { href: `/explore/${run.id}` },
      h("div", { class: "ground" }, run.grid !== null && h("img", { src: url(`/runs/${run.id}/grids/${run.grid}`), alt: "", loading: "lazy" })),
      h("span", { class: "title" }, `${run.recipe} · ${run.data}`), h("span", { class: "small muted" }, run.id))));
    replaceCards(shelf, cards.length ? cards : h("p", { class: "muted" }, "No run has a generator yet. ", h("a", { href: "/new" }, "Train one"), "."));
  });
}

const MOST_PINS = 12; // as many as a walk and a table of classes take
const MOST_BUTTONS = 62; // more classes are a list

function makeView(id, found) {
  const given = parameters();
  const chosen = {
    seed: wholeSeed(given.get("seed")), label: given.get("label") ?? "", count: Math.min(100, wholeSeed(given.get("count") ?? 25)) || 25,
    checkpoint: given.get("checkpoint") ?? "", truncation: Number(given.get("truncation") ?? 1),
  };
  const pins = parsePins(given.get("pins"));
  let model = null;
  let tiles = [];
  let current = -1;
  const asking = latest();
  const pinning = latest();
  let moving = null;
  let sketch = null;
  let writeAgain = () => {};
  const writing = latest();

  const canvas = h("div", { class: "tiles", role: "group", "aria-label": "Generated images" });
  const stage = h("div", { class: "ground stage" }, canvas);
  const status = h("span", { class: "muted small num", role: "status" });
  const head = h("div", { class: "page-head" });
  const pinned = h("section", { class: "panel stack", "aria-label": "Pinned images" });
  const extra = h("section", { class: "stack" });
  const left = h("div", { class: "stack" }, stage, h("div", { class: "row" }, status), pinned, extra);
  const right = h("div", { class: "stack" });
  const both = h("div", { class: given.get("seeds") === "0" ? "two no-seeds" : "two" }, left, right);

  // A label as text that means nothing else: 10 would be 1 and 0, and 1 may be the name of class 0.
  function asText(label) {
    const isOwn = /^\d$/.test(label) && !model.labels.some((other) => other.name.trim() === label && String(other.label) !== label);
    return isOwn || !/^\d+$/.test(label) ? label : `${label}-${label}`;
  }

  const useSeed = (wanted) => { chosen.seed = wanted; seed.value = wanted; draw(); };
  const seed = h("input", { type: "number", min: 0, step: 1, value: chosen.seed, "aria-label": "Seed", style: { width: "120px" }, oninput: () => { chosen.seed = wholeSeed(seed.value); draw(); }, onchange: () => { seed.value = chosen.seed; } });

  const draw = debounced(async () => {
    remember({ seed: chosen.seed || "", label: chosen.label, count: chosen.count === 25 ? "" : chosen.count, checkpoint: chosen.checkpoint, truncation: chosen.truncation === 1 ? "" : chosen.truncation });
    const signal = asking();
    writeAgain();
    const began = performance.now();
    const query = new URLSearchParams({ seed: chosen.seed, count: chosen.count, truncation: chosen.truncation });
    if (chosen.label !== "") query.set("labels", asText(chosen.label));
    if (chosen.checkpoint) query.set("checkpoint", chosen.checkpoint);
    try {
      const answer = await api(`/runs/${id}/sample?${query}`, { signal });
      const pictures = await tilesOf(answer);
      if (signal.aborted) return;
      tiles = answer.tiles;
      show(pictures, answer.columns);
      status.textContent = `${answer.count} ${answer.count === 1 ? "image" : "images"} in ${Math.round(performance.now() - began)} ms`;
      stage.dataset.ms = Math.round(performance.now() - began);
    } catch (error) {
      if (signal.aborted) return;
      clear(status, error.message, " ", h("button", { class: "small", onclick: () => draw() }, "Try again")); // the images before stay
    }
    drawLines();
  });

  function show(pictures, columns) {
    const room = Math.min(stage.clientWidth - 34, Math.max(280, innerHeight - 260));
    const side = Math.max(1, Math.floor(room / columns / model.size)) * model.size;
    canvas.style.gridTemplateColumns = `repeat(${columns}, minmax(0, ${side}px))`;
    canvas.classList.toggle("small-tiles", side < 40);
    keepFocus(canvas, () => clear(canvas, pictures.map((picture, k) => button(tiles[k], picture, k))));
    if (current >= pictures.length) current = -1;
  }

  function button(tile, picture, k) {
    const isPinned = pins.some((pin) => key(pin) === key(tile));
    const name = `${tile.name ?? "image"}, seed ${tile.seed}, tile ${tile.index}`;
    return h("button", { class: `tile${k === current ? " current" : ""}`, "aria-label": name, "aria-pressed": String(isPinned), title: "Click pins",
      onclick: () => toggle(tile), onfocus: () => { current = k; },
      onkeydown: (event) => walkKeys(event, k) }, picture, seedOf(tile));
  }

  const seedOf = (tile) => h("span", { class: "seed" }, `${tile.name ? `${tile.name} \u00b7 ` : ""}${tile.seed}:${tile.index}`);

  function walkKeys(event, k) {
    const columns = canvas.style.gridTemplateColumns.match(/\d+/)[0];
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: +columns }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    canvas.children[k + step]?.focus();
  }

  const key = (tile) => `${tile.seed}.${tile.index}.${tile.y}`;

  function toggle(tile) {
    const at = pins.findIndex((pin) => key(pin) === key(tile));
    if (at < 0 && pins.length >= MOST_PINS) return toast(`${MOST_PINS} images are pinned at most; unpin one first.`);
    at >= 0 ? pins.splice(at, 1) : pins.push({ seed: tile.seed, index: tile.index, y: tile.y, label: tile.label ?? null });
    remember({ pins: pins.map(key).join("_") });
    moving.show(null);
    for (const [k, element] of [...canvas.children].entries()) element.setAttribute("aria-pressed", String(pins.some((pin) => tiles[k] && key(pin) === key(tiles[k]))));
    drawPins();
  }

  const unpin = (tile) => { if (pins.some((pin) => key(pin) === key(tile))) toggle(tile); }; // it may be gone before the page shows it

  const source = () => sourceOf(found.path, chosen.checkpoint);
  const exact = (tile) => ({ seed: tile.seed, index: tile.index, y: tile.y });
  const body = (changes) => ({ checkpoint: chosen.checkpoint ? Number(chosen.checkpoint) : null, truncation: chosen.truncation, ...changes });

  const drawPinsSoon = debounced(() => drawPins());
  async function drawPins() {
    const signal = pinning();
    const title = h("div", { class: "row" }, h("h2", { class: "grow" }, "Pinned"), pins.length > 0 && h("button", { class: "quiet", onclick: () => { pins.length = 0; remember({ pins: "" }); moving.show(null); drawPins(); draw(); } }, "Clear"));
    const fill = (...parts) => keepFocus(pinned, () => clear(pinned, title, parts));
    if (!pins.length) return fill(h("p", { class: "muted small" }, "Click images to keep them here: walk between them, find the training images nearest to one, or draw them in every class."));
    try {
      const shown = [...pins];
      const answer = await api(`/runs/${id}/explore`, { body: body({ tiles: shown.map(exact) }), signal });
      const pictures = await tilesOf(answer);
      if (signal.aborted) return;
      const row = h("div", { class: "pins" }, pictures.map((picture, k) => h("div", { class: "stack" }, h("button", { class: "tile", "aria-label": `Pinned image ${k + 1}: unpin`, title: "Click unpins, dragging onto another walks there", draggable: true, onclick: () => unpin(shown[k]),
        ondragstart: (event) => event.dataTransfer.setData("text/plain", k), ondragover: (event) => event.preventDefault(),
        ondrop: (event) => { event.preventDefault(); const from = shown[event.dataTransfer.getData("text/plain")]; if (from && from !== shown[k]) walk([from, shown[k]]); } }, picture, seedOf(answer.tiles[k])),
        h("button", { class: "small", title: "Draws the grid with the seed of this image", onclick: () => useSeed(shown[k].seed) }, `Use seed ${shown[k].seed}`))));
      const tools = h("div", { class: "row" },
        h("button", { disabled: pins.length < 2, onclick: () => walk() }, "Walk between them"),
        h("button", { onclick: () => near(pins.at(-1)) }, "Nearest training images"),
        model.labels.length > 0 && h("button", { onclick: () => table() }, "In every class"),
        h("button", { onclick: () => save("explore", { tiles: pins.map(exact), format: "png" }, `${id}-pins.png`) }, "PNG"),
        h("button", { onclick: () => save("explore", { tiles: pins.map(exact), format: "npz" }, `${id}-pins.npz`) }, "NPZ"));
      fill(row, tools);
    } catch (error) {
      if (!signal.aborted) fill(h("p", { class: "fail" }, error.message));
    }
  }

  async function work(title, action) {
    const panel = h("section", { class: "panel stack" }, h("div", { class: "row" }, h("h2", { class: "grow" }, title), h("button", { class: "quiet", onclick: () => keepFocus(left, () => panel.remove()) }, "Close")), h("p", { class: "muted" }, "Drawing"));
    clear(extra, panel);
    try {
      const parts = await action();
      panel.lastChild.remove();
      panel.append(...parts.filter(Boolean));
    } catch (error) {
      panel.lastChild.replaceWith(h("p", { class: "fail" }, error.message));
    }
    panel.scrollIntoView({ block: "nearest" });
  }

  const walk = (ends = [...pins]) => work("A walk between the pinned images", async () => {
    const request = body({ tiles: ends.map(exact), steps: 24 });
    const answer = await api(`/runs/${id}/walk`, { body: request });
    const frames = await tilesOf(answer);
    const side = Math.max(1, Math.floor(224 / model.size)) * model.size;
    const screen = h("canvas", { class: "pixels", width: model.size, height: model.size, style: { width: `${side}px`, maxWidth: "100%" }, role: "img", "aria-label": "The image at this place of the walk" });
    const place = h("input", { type: "range", min: 0, max: frames.length - 1, value: 0, "aria-label": "Place in the walk", oninput: () => at(+place.value) });
    const name = h("span", { class: "muted small" });
    const at = (k) => { screen.getContext("2d").drawImage(frames[k], 0, 0); name.textContent = answer.tiles[k].name ?? ""; };
    at(0);
    return [h("div", { class: "row" }, screen, h("div", { class: "stack grow" }, place, name, h("p", { class: "muted small" }, "Latents move along the great circle between two ends; a class changes half-way."),
      h("div", { class: "row" }, h("button", { onclick: () => save("walk", { ...request, format: "gif" }, `${id}-walk.gif`) }, "GIF"), h("button", { onclick: () => save("walk", { ...request, format: "npz" }, `${id}-walk.npz`) }, "NPZ")))), walkLines(ends, request.steps)];
  });

  // `gansmith walk` visits entry 0 of each seed, in one class, and draws a class's sub-clusters by the seed.
  function walkLines(ends, steps) {
    const isWalk = ends.every((end) => end.index === 0 && end.y === ends[0].y) && chosen.truncation === 1;
    if (!isWalk || model.class_ids > Math.max(1, model.labels.length)) return arcLines(ends, steps);
    const label = model.labels.length ? ends[0].y : null;
    return same({
      terminal: `gansmith walk ${quote(source())} --seeds ${ends.map((end) => end.seed).join(",")}${label === null ? "" : ` --label ${asText(String(label))}`} --steps ${steps}`,
      Python: `gs.walk(${python(source())}, seeds=[${ends.map((end) => end.seed).join(", ")}], steps=${steps}${label === null ? "" : `, label=${label}`})`,
    });
  }

  // Any other walk as the studio draws it: along the arcs between these latents, the class changing half-way.
  function arcLines(ends, steps) {
    const words = [
      "import torch", "from itertools import pairwise", "from gansmith.latent_space import truncated", "from gansmith.sampling import arcs, draw_inputs, generate", `model = gs.load(${python(source())})`,
      `z = torch.cat([draw_inputs(model, seed=seed, count=k + 1)[0][-1:] for seed, k in [${ends.map((end) => `(${end.seed}, ${end.index})`).join(", ")}]])`,
      `y = torch.tensor([${ends.map((end) => end.y).join(", ")}])`, `model, z = truncated(model, z, ${chosen.truncation})`,
      `z = torch.cat([arcs(list(z), ${steps}, model.config.latent_distribution), z[-1:]])`,
      `y = torch.cat([*(torch.where(torch.arange(${steps}) < ${steps / 2}, a, b) for a, b in pairwise(y)), y[-1:]])`, "images = generate(model, z, y)",
    ];
    return same({ Python: words.join("; ") });
  }

  const near = (tile) => work("Nearest training images", async () => {
    const mine = await tilesOf(await api(`/runs/${id}/explore`, { body: body({ tiles: [exact(tile)] }) }));
    const answer = await api(`/runs/${id}/neighbours`, { body: body({ tile: exact(tile), count: 8 }) });
    const pictures = await tilesOf(answer);
    const figureOf = (picture, text) => h("figure", { class: "stack", style: { gap: "4px" } }, h("div", { class: "tile pixels", style: { width: "64px" } }, picture), h("figcaption", { class: "small muted num" }, text));
    return [h("p", { class: "muted small" }, "By the root mean square distance of pixels, 0 to 1. A distance near 0 is a copy."),
      h("div", { class: "row", style: { alignItems: "start" } }, figureOf(mine[0], "sample"), pictures.map((picture, k) => figureOf(picture, answer.tiles[k].distance.toFixed(3)))), h("div", {}, savingButton([...mine, ...pictures], pictures.length + 1, `${id}-neighbours.png`)), nearLines(exact(tile), pictures.length)];
  });

  const table = () => work("Pinned styles in every class", async () => {
    const labels = model.labels.slice(0, 26);
    const styles = [...pins];
    const answer = await api(`/runs/${id}/explore`, { body: body({ columns: labels.length, tiles: styles.flatMap((pin) => labels.map(({ label }) => ({ seed: pin.seed, index: pin.index, label }))) }) });
    const pictures = await tilesOf(answer);
    const head = (text) => h("span", { class: "small muted num", style: { background: "var(--surface)", padding: "2px", overflow: "hidden" } }, text);
    const rows = styles.map((pin, k) => [head(`${pin.seed}:${pin.index}`), pictures.slice(k * labels.length, (k + 1) * labels.length).map((picture) => h("div", { class: "tile" }, picture))]);
    return [h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Classes by styles" }, h("div", { class: "tiles", style: { gridTemplateColumns: `auto repeat(${labels.length}, ${Math.max(1, Math.round(44 / model.size)) * model.size}px)`, maxWidth: "none" } },
      head(""), labels.map(({ name }) => head(name)), rows)), labels.length < model.labels.length && h("p", { class: "muted small" }, `The first ${labels.length} of ${model.labels.length} classes.`), h("div", {}, savingButton(pictures, labels.length, `${id}-classes.png`)), tableLines(styles, labels)];
  });

  const save = (what, request, name) => download(`/runs/${id}/${what}`, { body: body(request), name });

  let hasFailed = false;
  function again() {
    remember({ checkpoint: chosen.checkpoint });
    parameters(); // writes the address
    go(location.pathname + location.search);
  }

  function drawHead() {
    const checkpoint = h("select", { "aria-label": "Checkpoint", onchange: () => {
      chosen.checkpoint = checkpoint.value;
      if (!model) return hasFailed && again(); // what is drawn first is of this one
      draw();
      drawPins();
      moving.renew();
    } }, h("option", { value: "" }, "newest checkpoint"),
      chosen.checkpoint && !found.checkpoints.map(String).includes(chosen.checkpoint) && h("option", { value: chosen.checkpoint, selected: true }, `${chosen.checkpoint} images (gone)`),
      found.checkpoints.map((seen) => h("option", { value: seen, selected: String(seen) === chosen.checkpoint }, `${count(seen)} images${seen === found.best ? " ★" : ""}`)));
    clear(head, h("div", { class: "grow" }, h("h1", {}, "Explore"), h("p", { class: "muted" }, h("a", { href: `/runs/${id}` }, id), ` · ${found.recipe} on ${found.data}`)), checkpoint, h("a", { class: "button", href: `/compare?runs=${id}` }, "Compare"));
  }

  const truncation = (form) => (chosen.truncation === 1 ? "" : form.replace("?", chosen.truncation));
  const lines = h("div");
  function drawLines() {
    const flags = [`--seed ${chosen.seed}`, chosen.label !== "" && `--labels ${quote(asText(chosen.label))}`, `--count ${chosen.count}`, truncation("--truncation ?")].filter(Boolean).join(" ");
    const keywords = [`${chosen.count}`, `seed=${chosen.seed}`, chosen.label !== "" && `labels=${/^\d+$/.test(chosen.label) ? `[${chosen.label}]` : python(chosen.label)}`, truncation("truncation=?")].filter(Boolean).join(", ");
    const isOpen = lines.querySelector("details")?.open;
    keepFocus(lines, () => clear(lines, same({ terminal: `gansmith sample ${quote(source())} ${flags}`, Python: `gs.sample(${python(source())}, ${keywords})` }, isOpen)));
  }

  function nearLines(tile, many) {
    const words = [
      ...inputsOf(source(), tile), `model, z = truncated(model, z, ${chosen.truncation})`, "from gansmith.pictures.plots import neighbours", "from gansmith.training.inputs import shown_images",
      `images = neighbours(generate(model, z, y), shown_images(gs.open_run(${python(found.path)}).config)[1].pixels, count=${many})`,
    ];
    return same({ Python: words.join("; ") });
  }

  function tableLines(styles, labels) {
    const pairs = styles.map(({ seed, index }) => `(${seed}, ${index})`).join(", ");
    return same({ Python: `images = [[gs.sample(${python(source())}, index + 1, seed=seed, labels=[y]${truncation(", truncation=?")}).images[index] for y in [${labels.map(({ label }) => label).join(", ")}]] for seed, index in [${pairs}]]` });
  }

  // In one hand, every letter is drawn with the seed's first latent.
  function writeLines(labels, isOneHand) {
    return same(isOneHand
      ? { Python: `images = [gs.sample(${python(source())}, 1, seed=${chosen.seed}, labels=[y]${truncation(", truncation=?")}).images[0] for y in [${labels.join(", ")}]]` }
      : { Python: `images = [gs.sample(${python(source())}, k + 1, seed=${chosen.seed}, labels=[y]${truncation(", truncation=?")}).images[k] for k, y in enumerate([${labels.join(", ")}])]` });
  }

  function drawControls() {
    const sizes = h("select", { "aria-label": "Number of images", onchange: () => { chosen.count = +sizes.value; draw(); } }, [...new Set([1, 4, 9, 16, 25, 49, 100, chosen.count])].sort((a, b) => a - b).map((many) => h("option", { value: many, selected: many === chosen.count }, `${many} image${many > 1 ? "s" : ""}`)));
    const choices = model.labels.length > MOST_BUTTONS ? [] : [{ label: "", name: "all" }, ...model.labels].map(({ label, name }) => [String(label), h("button", { onclick: () => { chosen.label = String(label); mark(); draw(); } }, name)]);
    const mark = () => choices.forEach(([label, choice]) => { choice.setAttribute("aria-pressed", String(label === chosen.label)); choice.classList.toggle("primary", label === chosen.label); });
    mark();
    const listed = h("select", { "aria-label": "Class", style: { maxWidth: "100%" }, onchange: () => { chosen.label = listed.value; draw(); } }, h("option", { value: "" }, "all classes"), model.labels.map(({ label, name }) => h("option", { value: label, selected: String(label) === chosen.label }, name)));
    const classes = model.labels.length > MOST_BUTTONS ? listed : model.labels.length > 0 && h("div", { class: "row", role: "group", "aria-label": "Class" }, choices.map(([, choice]) => choice));
    const strength = model.has_truncation && h("label", { class: "sliders" }, term("truncation", "truncation"), h("input", { type: "range", min: 0, max: 1, step: 0.05, value: chosen.truncation, oninput: (event) => { chosen.truncation = +event.target.value; event.target.nextSibling.textContent = event.target.value; draw(); drawPinsSoon(); } }), h("span", { class: "num" }, chosen.truncation));
    const query = () => new URLSearchParams({ seed: chosen.seed, count: chosen.count, truncation: chosen.truncation, ...(chosen.label !== "" ? { labels: asText(chosen.label) } : {}), ...(chosen.checkpoint ? { checkpoint: chosen.checkpoint } : {}) });
    const load = (kind) => h("button", { onclick: () => download(`/runs/${id}/sample.${kind}?${query()}`, { name: `${id}-seed-${chosen.seed}.${kind}` }) }, kind.toUpperCase());
    clear(right,
      h("section", { class: "panel stack" }, h("h2", {}, term("Seed", "seed")), h("div", { class: "row" }, seed,
        h("button", { class: "primary", onclick: () => useSeed(Math.floor(Math.random() * 1e6)) }, "New seed"), sizes),
        h("label", { class: "check small" }, h("input", { type: "checkbox", checked: !both.classList.contains("no-seeds"), onchange: (event) => { both.classList.toggle("no-seeds", !event.target.checked); remember({ seeds: event.target.checked ? "" : 0 }); } }), "seed and class on every tile")),
      classes && h("section", { class: "panel stack" }, h("h2", {}, "Class"), classes),
      strength && h("section", { class: "panel stack" }, h("h2", {}, "Truncation"), strength),
      moving.element,
      sketch,
      model.labels.length > 0 && writer(),
      h("section", { class: "panel stack" }, h("h2", {}, "Download"), h("div", { class: "row" }, load("png"), load("npz")), h("p", { class: "muted small" }, "PNG is a picture of the grid; NPZ holds images and labels as arrays.")),
      h("section", { class: "panel stack" }, h("h2", {}, "Generator"), h("p", { class: "muted" }, `${model.network}, ${model.size} × ${model.size} pixels, latent vector of ${model.latent_dim} numbers, ${model.labels.length ? `${model.labels.length} classes` : model.class_ids > 1 ? `${count(model.class_ids)} clusters` : "unconditional"}`)),
      lines);
  }

  // A word, each letter or digit a class: all in one hand (one latent), or each in its own.
  function writer() {
    const word = h("input", { type: "text", maxLength: 24, autocapitalize: "none", placeholder: "2026", value: parameters().get("word") ?? "", "aria-label": "Write", oninput: () => write() });
    const hands = h("select", { "aria-label": "Hands", onchange: () => write() }, h("option", { value: "one" }, "in one hand"), h("option", { value: "many", selected: parameters().get("hands") === "many" }, "in several hands"));
    const paper = h("div", { class: "tiles", style: { gridTemplateColumns: "none", gridAutoFlow: "column" } });
    const names = new Map(model.labels.map(({ label, name }) => [name, label]));
    for (const { label, name } of model.labels) {
      const number = /^(?:digit )?(\d)\b/.exec(name.toLowerCase());
      for (const other of [number?.[1], name.toLowerCase(), name.toUpperCase()]) if (other && !names.has(other)) names.set(other, label);
    }
    if (![...names.keys()].some((name) => name.length === 1)) return null;
    const keeping = h("span");
    const lined = h("div");
    const classOf = (letter) => names.get(letter) ?? names.get(letter.toLowerCase()) ?? names.get(letter.toUpperCase()); // phones begin with a capital
    const write = debounced(async () => {
      const letters = [...word.value].filter((letter) => letter !== " ");
      const missing = letters.find((letter) => classOf(letter) === undefined);
      const signal = writing();
      clear(keeping);
      clear(lined);
      remember({ word: word.value, hands: hands.value === "many" ? "many" : "" });
      if (!letters.length) return clear(paper);
      if (missing) return clear(paper, h("span", { class: "fail small", style: { padding: "8px", background: "var(--surface)" } }, `There is no class “${missing}”.`));
      try {
        const answer = await api(`/runs/${id}/explore`, { body: body({ columns: letters.length, tiles: letters.map((letter, k) => ({ seed: chosen.seed, index: hands.value === "one" ? 0 : k, label: classOf(letter) })) }), signal });
        const pictures = await tilesOf(answer);
        if (signal.aborted) return;
        const side = Math.max(1, Math.min(3, Math.floor((right.clientWidth - 40) / letters.length / model.size))) * model.size;
        paper.classList.toggle("small-tiles", side < 80);
        clear(paper, pictures.map((picture, k) => h("div", { class: "tile", style: { width: `${side}px` } }, picture, seedOf(answer.tiles[k]))));
        clear(lined, writeLines(letters.map((letter) => names.get(letter)), hands.value === "one"));
        clear(keeping, savingButton(pictures, letters.length, `${id}-${word.value.replace(/\W+/g, "-")}.png`));
      } catch (error) {
        if (!signal.aborted) clear(paper, h("span", { class: "fail" }, error.message));
      }
    });
    writeAgain = () => { if (word.value) write(); };
    return h("section", { class: "panel stack" }, h("h2", {}, "Write"), h("div", { class: "row" }, word, hands, keeping), h("div", { style: { overflowX: "auto" } }, paper), lined);
  }

  return {
    head, body: both,
    async open() {
      clear(canvas, Array.from({ length: 25 }, () => h("div", { class: "skeleton", style: { width: "56px", aspectRatio: "1" } })));
      canvas.style.gridTemplateColumns = "repeat(5, minmax(0, 56px))";
      drawHead();
      try {
        model = await api(`/runs/${id}/generator${chosen.checkpoint ? `?checkpoint=${chosen.checkpoint}` : ""}`);
      } catch (error) {
        hasFailed = true;
        clear(left, oops(error, again));
        return;
      }
      if (!both.isConnected) return;
      moving = sliders({ id, model, body, exact, source, pins });
      sketch = drawing({ id, model, body, source, onFound: moving.show });
      drawControls();
      draw();
      drawPins();
      moving.draw();
    },
    close() { asking(); },
  };
}

function parsePins(text) {
  const pins = [];
  for (const part of (text ?? "").split("_")) {
    const [seed, index, y] = part.split(".").map(Number);
    if (Number.isInteger(seed) && Number.isInteger(index) && Number.isInteger(y) && part) pins.push({ seed, index, y });
  }
  return pins.slice(0, MOST_PINS);
}
