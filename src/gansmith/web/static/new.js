// A new run: data, recipe, length, options, on one page; the command that does the same stays in view.
import { go, known, state } from "./app.js";
import { alarm, api, clear, code, count, debounced, dropped, duration, h, keepFocus, latest, parameters, ratio, remember, same, toast, url } from "./lib.js";

const ABOUT = {
  default: "Gansmith's own recipe: the best result in minutes on a few cores. Start here.",
  "default-unlabelled": "The same without reading any labels.",
  r3gan: "A modern baseline: relativistic loss with gradient penalties on real and generated images.",
  "stylegan-lite": "A small StyleGAN2 with styles to mix and truncate.",
  "wgan-gp": "Wasserstein loss with a gradient penalty.",
  "mlp-small": "The two-layer networks of introductory tutorials.",
};
const LENGTHS = [["1", "1 min", "first shapes"], ["3", "3 min", "readable digits"], ["10", "10 min", "good digits"], ["30", "30 min", "clothes, small color images"]];

export async function render(main) {
  const given = parameters();
  const [{ fields }, { recipes }, { data_sets: sets }] = await Promise.all([api("/fields"), api("/recipes"), api("/datasets"), known()]);
  const wanted = { recipe: "default", data: "mnist", length: "minutes", amount: "3", choices: {}, dropped: [] };
  const from = given.get("from");
  const isCopy = from !== null && await takeOver(from, wanted, fields);
  if (!main.isConnected) return;  // another page was opened
  const begun = inAddress(wanted);
  reopen(wanted, given);
  const foot = h("div", { class: "foot" });
  const problem = h("p", { class: "fail", role: "alert" });
  const start = h("button", { class: "primary", onclick: begin }, "Start");
  const line = h("div", { class: "grow" });
  const lines = h("div");

  const asking = latest();
  const settle = debounced(async () => {
    if (!main.isConnected) return; // another page was opened
    const signal = asking();
    const now = inAddress(wanted);
    remember(Object.fromEntries(Object.entries(now).map(([name, value]) => [name, value === begun[name] ? "" : value])));
    recipe.renew();
    data.renew();
    problem.textContent = "";
    if (!wanted.data) return refuse("Choose the data first.");
    if (wanted.sending && !wanted.sending.aborted) return refuse("Your images are still being sent.");
    if (wanted.refused) return refuse("Training would refuse these images.");
    if (wanted.amount !== "" && !(wanted.amount > 0)) return refuse("The length must be above 0.");
    if (wanted.amount !== "" && wanted.length === "images" && !Number.isInteger(+wanted.amount)) return refuse("A length in images is a whole number.");
    try {
      const found = await api("/config", { body: request(), signal });
      start.disabled = false;
      length.expect(paceOf(found.config));
      keepFocus(line, () => clear(line, code(found.commands.terminal, "terminal")));
      const isOpen = lines.querySelector("details")?.open;
      keepFocus(lines, () => clear(lines, same({ terminal: found.commands.terminal, Python: found.commands.python }, isOpen)));
    } catch (error) {
      if (signal.aborted) return;
      problem.textContent = error.message;
      refuse("There is no command for this yet.");
      if (!["ConfigError", "DataError", "NotFoundError"].includes(error.kind)) line.append(" ", h("button", { type: "button", onclick: () => settle() }, "Try again"));
    }
  });

  function refuse(sentence) {
    start.disabled = true;
    clear(line, h("span", { class: "muted" }, sentence));
    clear(lines);
  }

  function request() {
    const length = wanted.amount === "" ? {} : { [wanted.length]: wanted.length === "images" ? Math.round(+wanted.amount) : +wanted.amount };
    return { recipe: wanted.recipe, data: wanted.data, ...length, choices: wanted.choices };
  }

  async function begin() {
    start.disabled = true;
    try {
      const job = await api("/jobs", { body: request() });
      const isBusy = state.jobs.some((one) => one.id !== job.id && one.state !== "ended") || [...state.runs.values()].some((one) => one.id !== job.run && one.status === "running");
      toast(`${job.run} ${isBusy ? "waits for its turn" : "starts"}`);
      if (main.isConnected) go("/");
    } catch (error) {
      problem.textContent = error.message;
      start.disabled = false;
      start.focus();
    }
  }

  const options = optionStep(wanted, fields, recipes, settle);
  const length = lengthStep(wanted, settle);
  const data = dataStep(wanted, sets, settle);
  const recipe = recipeStep(wanted, recipes, () => { options.draw(); settle(); });
  clear(foot, line, start);
  main.append(h("div", { class: "narrow stack loose" },
    h("h1", {}, isCopy ? `A copy of ${from}` : "New run"),
    wanted.dropped.length > 0 && h("p", { class: "notice" }, `Not taken over, since a form cannot set it: ${wanted.dropped.join(", ")}.`),
    data.element, recipe.element, length.element, options.element, lines, problem, foot));
  settle();
  if (state.dropped) { // on another page
    data.send(state.dropped);
    state.dropped = null;
  }
  if (location.hash === "#data") document.getElementById("data")?.scrollIntoView();
  return data.close;
}

// What decides how many images a second are seen, as the card of a run has it.
function paceOf(rows) {
  const value = Object.fromEntries(rows.map((row) => [row.name, row.value]));
  return `${value.network} ${value.g_width} ${value.d_width}, batches of ${value.batch_size}`;
}

const LENGTH_UNITS = ["minutes", "images", "epochs"];
const NOT_CHOSEN = ["recipe", "data", "data_dir", "images", "planned_images", "schedule_images"]; // they are set elsewhere, or follow

// What the address says of a form.
const inAddress = (wanted) => ({ recipe: wanted.recipe, data: wanted.data, choices: JSON.stringify(wanted.choices), ...Object.fromEntries(LENGTH_UNITS.map((unit) => [unit, unit === wanted.length ? String(wanted.amount) : ""])) });

function reopen(wanted, given) {
  for (const name of ["recipe", "data"]) if (given.has(name)) wanted[name] = given.get(name);
  for (const unit of LENGTH_UNITS) if (given.has(unit)) Object.assign(wanted, { length: unit, amount: given.get(unit) });
  try {
    const choices = JSON.parse(given.get("choices") ?? "null");
    if (choices && typeof choices === "object") wanted.choices = choices;
  } catch { /* not ours: the form starts without */ }
}

// Takes over the choices of another run that are not its recipe's; false where it cannot be read.
async function takeOver(from, wanted, fields) {
  try {
    const found = await api(`/runs/${from}`);
    const known = new Set(fields.map((field) => field.name));
    Object.assign(wanted, { recipe: found.recipe, length: "images", amount: String(found.images), data: found.data_choice, lost: found.data_choice ? "" : found.data });
    for (const row of found.config.filter((row) => row.is_changed && !NOT_CHOSEN.includes(row.name))) known.has(row.name) ? (wanted.choices[row.name] = row.value) : wanted.dropped.push(`${row.name} (${row.value || "none"})`);
    return true;
  } catch (error) {
    alarm(error);
    return false;
  }
}

function group(buttons, isOn) {
  const mark = () => buttons.forEach(([value, button]) => button.setAttribute("aria-pressed", String(isOn(value))));
  mark();
  return mark;
}

function dataStep(wanted, sets, settle) {
  const result = h("div", { class: "stack", role: "status" });
  const pictures = new Map([...state.runs.values()].filter((run) => run.grid !== null).map((run) => [run.data, run.id]));
  const sending = latest();
  const buttons = sets.map(({ name, about }) => [name, h("button", { class: "choice", type: "button", onclick: () => { sending(); wanted.data = name; wanted.refused = ""; clear(result); mark(); settle(); } },
    pictures.has(name) && h("img", { class: "pixels", src: url(`/runs/${pictures.get(name)}/files/real.png`), alt: "", style: { width: "100%", aspectRatio: "3", objectFit: "cover", objectPosition: "top left" }, onerror: (event) => event.target.remove() }), h("strong", {}, name), h("span", { class: "muted small" }, about))]);
  const mark = group(buttons, (name) => name === wanted.data);
  const files = h("input", { type: "file", multiple: true, class: "hidden-text", accept: ".zip,.npz,.npy,.tar,.tgz,.gz,.bz2,.xz,.csv,.tsv,.bin,.mat,.parquet,image/*", tabIndex: -1, "aria-label": "Pictures or an archive", onchange: () => sendFrom(files) });
  const folder = h("input", { type: "file", class: "hidden-text", webkitdirectory: true, tabIndex: -1, "aria-label": "A folder of pictures", onchange: () => sendFrom(folder) });
  folder.setAttribute("webkitdirectory", "");
  const drop = h("div", { class: "drop", ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); }, ondragleave: () => drop.classList.remove("over"), ondrop: async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    send(await dropped(event.dataTransfer));
  } }, h("div", { class: "row", style: { justifyContent: "center" } }, "Your own images: drop a folder, a .zip or a .npz here, or ", h("button", { type: "button", onclick: () => files.click() }, "Choose files"), h("button", { type: "button", onclick: () => folder.click() }, "Choose a folder"), files, folder));

  async function send(chosen) {
    if (!chosen.length) return;
    const progress = h("progress", { max: 1, "aria-label": "Upload" }); // of a single file it is not known
    const signal = sending();
    wanted.sending = signal;
    settle();
    const cancel = () => { sending(); clear(result); drop.querySelector("button").focus(); settle(); };
    clear(result, h("div", { class: "panel row" }, h("span", {}, "Sending"), progress, h("button", { type: "button", onclick: cancel }, "Cancel")));
    try {
      const wantedFiles = chosen.filter(isShown);
      const first = pathOf(wantedFiles[0] ?? chosen[0]);
      // Folders dropped together have none around them.
      const isOne = wantedFiles.every((file) => pathOf(file).split("/")[0] === first.split("/")[0]);
      const upload = await api("/uploads", { body: { name: isOne ? first.split("/")[0] : "images" }, signal });
      const sent = readable(chosen, upload);
      const bytes = sent.reduce((sum, file) => sum + file.size, 0);
      if (bytes > upload.max_bytes) throw new Error(`These files have ${count(bytes / 1e6)} MB, and an upload ${count(upload.max_bytes / 1e6)} MB at most; train on them by gansmith train --data.`);
      for (const [k, file] of sent.entries()) {
        await api(`/uploads/${upload.id}/files?name=${encodeURIComponent((isOne ? "" : "images/") + pathOf(file))}`, { method: "PUT", raw: file, signal });
        if (sent.length > 1) progress.value = (k + 1) / sent.length;
      }
      clear(result, h("div", { class: "skeleton", style: { height: "160px" } }));
      const facts = await look(upload.id, signal);
      if (!signal.aborted) show(upload, facts, chosen.length - sent.length);
    } catch (error) {
      if (!signal.aborted) clear(result, h("p", { class: "notice fail" }, error.message));
    } finally {
      if (wanted.sending === signal) {
        wanted.sending = null;
        settle();
      }
    }
  }

  // The same files may be chosen again: an input says only what changes.
  function sendFrom(input) {
    const chosen = [...input.files];
    input.value = "";
    send(chosen);
  }

  // How the choices prepare pictures, as a query.
  const prepared = () => new URLSearchParams(["size", "resize", "color"].filter((name) => name in wanted.choices).map((name) => [name, wanted.choices[name]])).toString();

  function look(id, signal) {
    result.shown = prepared();
    return api(`/uploads/${id}?${result.shown}`, { signal });
  }

  // An upload that is here: of the run that is duplicated, of the address, or prepared in another way now.
  async function again(id) {
    const signal = sending();
    try {
      const facts = await look(id, signal);
      if (!signal.aborted) show({ id }, facts);
    } catch (error) {
      if (!signal.aborted) clear(result, h("p", { class: "notice fail" }, error.message));
    }
  }

  function show(upload, answer, skipped = 0) {
    const { facts } = answer;
    wanted.data = `upload:${upload.id}`;
    wanted.refused = facts.refused;
    mark();
    settle();
    const classes = Object.entries(facts.classes);
    clear(result, h("div", { class: "panel stack" }, h("div", { class: "spread" }, h("h3", {}, facts.name), h("span", { class: "muted" }, facts.layout)),
      h("img", { class: "pixels", src: `data:image/png;base64,${answer.png}`, alt: "Some of the images as they would be trained on", style: { maxWidth: "100%" } }),
      h("p", {}, Object.entries(facts.images).map(([part, many]) => `${count(many)} ${part} ${many === 1 ? "image" : "images"}`).join(", "), " · ", facts.prepared),
      h("p", { class: "muted" }, classes.length ? `${classes.length} classes: ${classes.slice(0, 12).map(([name, many]) => `${name} (${count(many)})`).join(", ")}${classes.length > 12 ? " and more" : ""}` : "no classes"),
      skipped > 0 && h("p", { class: "muted small" }, `${count(skipped)} other ${skipped === 1 ? "file was" : "files were"} left out.`),
      facts.refused && h("p", { class: "notice fail" }, facts.refused),
      facts.notices.map((notice) => h("p", { class: "muted small" }, notice))));
  }
  if (wanted.lost && !wanted.data) clear(result, h("p", { class: "notice" }, `The other run read “${wanted.lost}” from its own place, which this form cannot name: choose the data again.`));
  if (wanted.data.startsWith("upload:")) again(wanted.data.slice(7));
  return {
    send,
    element: step("1", "Data", h("div", { class: "choices" }, buttons.map(([, button]) => button)), drop, result),
    close: () => sending(),
    renew() { if (wanted.data.startsWith("upload:") && result.shown !== prepared()) again(wanted.data.slice(7)); },
  };
}

const pathOf = (file) => file.relative || file.webkitRelativePath || file.name;

const isShown = (file) => !/(^|\/)(\.|__MACOSX\/|@eaDir\/|Thumbs\.db$|desktop\.ini$)/i.test(pathOf(file));

// The pictures of what was chosen, else its archives; neither hidden files nor what systems leave in folders.
function readable(chosen, { pictures, packed }) {
  const files = chosen.filter(isShown);
  const having = (endings) => files.filter((file) => endings.some((ending) => file.name.toLowerCase().endsWith(ending)));
  return [having(pictures), having(packed), files].find((some) => some.length) ?? chosen;
}

function recipeStep(wanted, recipes, settle) {
  const names = recipes.map((recipe) => recipe.name);
  const featured = Object.keys(ABOUT).filter((name) => names.includes(name));
  const shelf = h("div", { class: "choices" });
  let mark = () => {};
  const others = h("select", { "aria-label": "Another recipe", onchange: () => { if (others.value) { wanted.recipe = others.value; mark(); settle(); } } },
    h("option", { value: "" }, "another recipe"), names.filter((name) => !featured.includes(name)).map((name) => h("option", { value: name, selected: name === wanted.recipe }, name)));
  // Beside each recipe what it reached here on these images: FD ratios of others do not compare.
  function draw() {
    const best = new Map();
    for (const run of [...state.runs.values()].filter((one) => one.grid !== null && one.data === wanted.data).sort((p, q) => (q.fd_ratio ?? 1e9) - (p.fd_ratio ?? 1e9))) best.set(run.recipe, run);
    const buttons = featured.map((name) => [name, h("button", { class: "choice", type: "button", onclick: () => { wanted.recipe = name; others.value = ""; mark(); settle(); } },
      best.has(name) && h("img", { class: "pixels", src: url(`/runs/${best.get(name).id}/grids/${best.get(name).grid}`), alt: "", style: { width: "100%", aspectRatio: "2", objectFit: "cover", objectPosition: "top left" } }),
      h("strong", {}, name), h("span", { class: "muted small" }, ABOUT[name]), best.has(name) && h("span", { class: "small num" }, `here: FD ratio ${ratio(best.get(name).fd_ratio)}`))]);
    keepFocus(shelf, () => clear(shelf, buttons.map(([, button]) => button)));
    mark = group(buttons, (name) => name === wanted.recipe);
    shelf.shown = wanted.data;
  }
  draw();
  const element = step("2", "Recipe", shelf, h("div", {}, others));
  return { element, renew: () => { if (shelf.shown !== wanted.data) draw(); } };
}

function lengthStep(wanted, settle) {
  const unit = h("select", { "aria-label": "Length in", onchange: () => { wanted.length = unit.value; mark(); settle(); } }, LENGTH_UNITS.map((name) => h("option", { value: name, selected: name === wanted.length }, name)));
  const amount = h("input", { type: "number", min: 0, step: "any", value: wanted.amount, "aria-label": "Length", style: { width: "128px" }, oninput: () => { wanted.amount = amount.value; mark(); settle(); } });
  const buttons = LENGTHS.map(([minutes, name, what]) => [minutes, h("button", { class: "choice", type: "button", onclick: () => { Object.assign(wanted, { length: "minutes", amount: minutes }); unit.value = "minutes"; amount.value = minutes; mark(); settle(); } }, h("strong", {}, name), h("span", { class: "muted small" }, what))]);
  const mark = group(buttons, (minutes) => wanted.length === "minutes" && wanted.amount === minutes);
  const note = h("p", { class: "muted" });
  function expect(pace) {
    const like = [...state.runs.values()].filter((run) => run.images_per_s && run.recipe === wanted.recipe && run.pace === pace && run.data === wanted.data).sort((a, b) => b.changed_at - a.changed_at)[0];
    if (!like) return clear(note, "This machine is measured as the run starts; its first minute shows how far it gets.");
    const isLength = +wanted.amount > 0;
    const images = !isLength ? null : wanted.length === "minutes" ? wanted.amount * 60 * like.images_per_s : wanted.length === "images" ? +wanted.amount : null;
    clear(note, images ? `About ${count(images)} images in ${duration(images / like.images_per_s)}: ${like.id} saw ${count(like.images_per_s)} a second here and reached FD ratio ${ratio(like.fd_ratio)} after ${count(like.images_seen)}.` : "");
  }
  const element = step("3", "Length", h("div", { class: "choices" }, buttons.map(([, button]) => button)), h("div", { class: "row" }, h("span", { class: "muted" }, "or"), amount, unit), note);
  return { element, expect };
}

function optionStep(wanted, fields, recipes, settle) {
  const search = h("input", { type: "search", placeholder: "Search options", "aria-label": "Search options", oninput: () => draw() });
  const groups = h("div", { class: "stack" });
  const chosen = h("p", { class: "muted small" });
  function draw() {
    const word = search.value.toLowerCase();
    const shown = fields.filter((field) => !word || `${field.name} ${field.help} ${field.advice}`.toLowerCase().includes(word));
    const names = [...new Set(shown.map((field) => field.group))];
    const open = [...groups.querySelectorAll("details[open]")].map((group) => group.dataset.group);
    clear(groups, names.map((name) => h("details", { "data-group": name, open: Boolean(word) || open.includes(name) || shown.some((field) => field.group === name && field.name in wanted.choices) }, h("summary", {}, h("strong", {}, name)),
      h("div", { class: "options", style: { padding: "12px 0" } }, shown.filter((field) => field.group === name).map((field) => option(field))))));
    count_();
  }
  const count_ = () => { const many = Object.keys(wanted.choices).length; chosen.textContent = many ? `${many} changed: ${Object.keys(wanted.choices).join(", ")}` : "None changed: the recipe's own values are used."; };
  function option(field) {
    const inherited = recipes.find((recipe) => recipe.name === wanted.recipe)?.values[field.name] ?? field.default;
    const set = (value) => { value === "" || value === undefined ? delete wanted.choices[field.name] : (wanted.choices[field.name] = value); count_(); settle(); };
    const now = wanted.choices[field.name];
    const range = field.low !== null && field.high !== null ? ` ${field.low} to ${short_(field.high)}.` : field.low !== null ? ` ${field.low} or more.` : "";
    const label = { id: `field-${field.name}` };
    let input;
    if (field.choices.length || field.kind === "bool") {
      const values = field.choices.length ? field.choices : ["true", "false"];
      input = h("select", { ...label, onchange: (event) => set(field.kind === "bool" && event.target.value ? event.target.value === "true" : event.target.value) }, h("option", { value: "" }, `${inherited} (recipe)`), values.map((value) => h("option", { value, selected: String(now) === String(value) }, value)));
    } else {
      const isNumber = field.kind === "int" || field.kind === "float";
      input = h("input", { ...label, type: isNumber ? "number" : "text", step: "any", min: field.low ?? undefined, max: field.high ?? undefined, placeholder: String(inherited), value: now ?? "", oninput: (event) => set(event.target.value === "" ? "" : isNumber ? +event.target.value : event.target.value) });
    }
    return h("label", { class: "field" }, h("span", { class: "mono", style: { color: "var(--text)" } }, field.name), input, h("span", {}, `${field.help}.${range}`),
      field.advice && h("span", {}, `When: ${field.advice}.`), field.source && h("span", {}, `Source: ${field.source}.`));
  }
  draw();
  const element = h("details", { class: "panel", open: Object.keys(wanted.choices).length > 0 }, h("summary", {}, "4  Options"), h("div", { class: "stack" }, search, chosen, groups));
  return { element, draw };
}

const short_ = (value) => (Math.abs(value) >= 1e6 ? Number(value).toExponential(0) : value);
const step = (number, title, ...children) => h("section", { class: "stack", id: title.toLowerCase() }, h("h2", {}, h("span", { class: "muted" }, `${number}  `), title), ...children);
