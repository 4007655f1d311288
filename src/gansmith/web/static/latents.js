// Sections of the explorer that act on latents: sliders along directions, a drawing or a picture projected.
import { api, clear, debounced, h, inputsOf, keepFocus, latest, parameters, python, quote, remember, same, savingButton, term, tilesOf, toast } from "./lib.js";

const SIDE = 280; // of the drawing
const MAX_UPLOAD_PX = 512;
const MAX_UPLOAD_CHARACTERS = 250_000;
const DIRECTIONS = 10;
const FURTHEST = 4; // standard deviations along a direction
const DIRECTION = "The main directions of latent space: principal components of the activations of G's first layer, with their share of the variance.";
const VARIETY = "Below 1, latents (or styles) move towards their mean: truer to type, less varied.";

// The sliders move one image: the newest pinned one, or what was found for a drawing.
export function sliders({ id, model, body, exact, source, pins }) {
  const picture = h("div", { class: "ground", style: { width: "max-content" } });
  const rows = h("div", { class: "sliders" });
  const status = h("p", { class: "small muted num", role: "status" });
  const keeping = h("span");
  const lines = h("div");
  const element = h("section", { class: "panel stack", style: { minHeight: "640px" } }, h("h2", {}, term("Directions", DIRECTION)), picture, rows, status, lines);
  const given = parameters();
  const steps = parseSteps(given.get("steps"));
  let variety = within(given.get("variety") ?? 1, 0, 1);
  let subject = null; // latents and label of a picture that was inverted
  let isBuilt = false;
  const asking = latest();

  const draw = debounced(async () => {
    const signal = asking(); // the first answer in a class takes longer, and others would wait
    const tile = pins.at(-1);
    const start = subject ?? { tile: tile ? exact(tile) : { seed: 0, index: 0 } };
    const isAtStart = subject !== null || steps.every((step) => step === 0); // no address holds a picture
    remember({ steps: isAtStart ? "" : steps.join("_"), variety: subject !== null || variety === 1 ? "" : variety });
    const began = performance.now();
    try {
      const answer = await api(`/runs/${id}/move`, { body: { checkpoint: body({}).checkpoint, ...start, steps, variety }, signal });
      const [canvas] = await tilesOf(answer);
      if (signal.aborted) return;
      const side = Math.max(1, Math.floor(168 / model.size)) * model.size;
      Object.assign(canvas.style, { width: `${side}px`, height: `${side}px` });
      canvas.classList.add("pixels");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", "The image, moved along the directions");
      clear(picture, canvas);
      if (!isBuilt) { isBuilt = true; keepFocus(element, () => fill(answer.shares)); }
      clear(keeping, savingButton([canvas], 1, `${id}-moved.png`));
      drawLines(tile ?? { seed: 0, index: 0 }, answer.shares.length);
      status.textContent = `${subject ? "your picture" : tile ? "the newest pinned image" : "image 0 of seed 0"}, moved in ${Math.round(performance.now() - began)} ms`;
    } catch (error) {
      if (!signal.aborted) status.textContent = error.message;
    }
  });

  // The same in Python; of a picture that was inverted, `invert` gives the latents.
  function drawLines(tile, many) {
    const isOpen = lines.querySelector("details")?.open;
    const label = model.labels.length ? ", label=int(model.conditioning.label_of(y))" : "";
    const words = [
      ...inputsOf(source(), tile), `z = gs.directions(model, ${many}${label}).move(z, [${steps.slice(0, many).join(", ")}])`,
      `model, z = truncated(model, z, ${variety})`, "images = generate(model, z, y)",
    ];
    keepFocus(lines, () => clear(lines, subject === null && same({ Python: words.join("; ") }, isOpen)));
  }

  function slider(name, tip, low, high, value, change) {
    const shown = h("span", { class: "num" }, value.toFixed(1));
    const input = h("input", { type: "range", min: low, max: high, step: 0.1, value, "aria-label": name, oninput: () => { shown.textContent = (+input.value).toFixed(1); change(+input.value); draw(); } });
    return [tip ? term(name, tip) : h("span", {}, name), input, shown];
  }

  function fill(shares) {
    clear(rows, shares.map((share, k) => slider(`PC ${k + 1} (${Math.round(100 * share)}\u202f%)`, "", -FURTHEST, FURTHEST, steps[k], (value) => { steps[k] = value; })),
      slider("variety", VARIETY, 0, 1, variety, (value) => { variety = value; }));
    element.querySelector(".reset")?.remove();
    element.append(h("div", { class: "row reset" }, h("button", { onclick: () => { steps.fill(0); variety = 1; isBuilt = false; draw(); } }, "Reset"), keeping));
  }

  return { element, draw, renew() { isBuilt = false; draw(); }, show(found) { subject = found; steps.fill(0); variety = 1; isBuilt = false; draw(); } };
}

// A canvas to draw on with mouse, finger or pen, and a picture from a file; both are projected into latent space.
export function drawing({ id, model, body, source, onFound }) {
  const paper = h("canvas", { width: SIDE, height: SIDE, tabindex: "0", role: "img", "aria-label": "A canvas to draw on with the mouse, a finger or a pen", style: { width: `${SIDE}px`, aspectRatio: "1", maxWidth: "100%", touchAction: "none", cursor: "crosshair", background: "#fff", border: "1px solid var(--line)" } });
  const brush = h("select", { "aria-label": "Brush" }, [["thin", 14], ["medium", 22], ["thick", 32]].map(([name, width]) => h("option", { value: width, selected: width === 22 }, name)));
  const file = h("input", { type: "file", accept: "image/*", "aria-label": "A picture from a file", onclick: () => { file.value = ""; }, onchange: () => { if (file.files[0]) upload(file.files[0]); } });
  const result = h("div", { class: "row", role: "status", style: { alignItems: "start" } });
  const context = paper.getContext("2d");
  let last = null;
  const asking = latest();
  const erase = () => { context.fillStyle = "#fff"; context.fillRect(0, 0, SIDE, SIDE); clear(result); asking(); file.value = ""; };

  function point(event) {
    const box = paper.getBoundingClientRect();
    return [((event.clientX - box.left) * SIDE) / box.width, ((event.clientY - box.top) * SIDE) / box.height];
  }
  function stroke(event) {
    const next = point(event);
    Object.assign(context, { lineWidth: +brush.value, lineCap: "round", lineJoin: "round", strokeStyle: "#111" });
    context.beginPath();
    context.moveTo(...(last ?? next));
    context.lineTo(...next);
    context.stroke();
    last = next;
  }
  paper.addEventListener("pointerdown", (event) => { paper.setPointerCapture(event.pointerId); last = null; stroke(event); });
  paper.addEventListener("pointermove", (event) => { if (last) stroke(event); });
  for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => { if (last) { last = null; project(paper.toDataURL("image/png"), "drawing.png"); } });

  // Transparency stays, as in the file: what lies under it is chosen where the picture is read.
  function encoded(image, side) {
    const share = Math.min(1, side / Math.max(image.width, image.height));
    const small = h("canvas", { width: Math.max(1, Math.round(image.width * share)), height: Math.max(1, Math.round(image.height * share)) });
    small.getContext("2d").drawImage(image, 0, 0, small.width, small.height);
    return small.toDataURL("image/webp", 0.92);
  }

  async function upload(chosen) {
    try {
      const image = await createImageBitmap(chosen);
      let side = MAX_UPLOAD_PX;
      let data = encoded(image, side);
      while (data.length > MAX_UPLOAD_CHARACTERS) data = encoded(image, (side /= 2));
      project(data, chosen.name);
    } catch {
      toast("This file is no picture that the browser can open.");
    }
  }

  async function project(data, name) {
    const signal = asking();
    clear(result, h("span", { class: "muted" }, "Looking for it in latent space"));
    try {
      const answer = await api(`/runs/${id}/invert`, { body: { checkpoint: body({}).checkpoint, picture: data.split(",")[1] }, signal });
      const pictures = await tilesOf(answer);
      if (signal.aborted) return;
      const side = Math.max(1, Math.floor(112 / model.size)) * model.size;
      const shown = pictures.map((canvas, k) => {
        Object.assign(canvas.style, { width: `${side}px`, height: `${side}px` });
        canvas.classList.add("pixels");
        return h("figure", { class: "stack", style: { gap: "4px" } }, canvas, h("figcaption", { class: "small muted" }, k ? "what G draws" : "as G's images are"));
      });
      const opinion = answer.realness && `D finds your picture more real than ${Math.round(100 * answer.realness[0])}\u202f% of G's samples.`;
      clear(result, shown, h("div", { class: "stack", style: { flex: "1 1 180px" } },
        answer.name && h("p", {}, `Found in class ${answer.name}.`),
        h("p", { class: "muted" }, `Pixel error ${answer.pixel_error.toFixed(3)}; the nearest of many random samples had ${answer.sample_error.toFixed(3)}.`), opinion && h("p", {}, opinion),
        answer.notices.map((notice) => h("p", { class: "small muted" }, notice)),
        h("div", { class: "row" }, savingButton(pictures, 2, `${id}-inverted.png`), h("button", { onclick: () => onFound({ latents: answer.latents, label: answer.label }) }, "Move it along directions"))), same({ terminal: `gansmith invert ${quote(source())} ${quote(name)}`, Python: `gs.invert(${python(source())}, ${python(name)})` }));
    } catch (error) {
      if (!signal.aborted) clear(result, h("span", { class: "fail" }, error.message));
    }
  }

  erase();
  return h("section", { class: "panel stack" }, h("h2", {}, term("Draw", "What you draw is projected into latent space: the nearest image that the generator can make.")), paper,
    h("div", { class: "row" }, brush, h("button", { onclick: erase }, "Clear")), h("label", { class: "field" }, "or a picture", file), result);
}

const within = (value, low, high) => (Number.isFinite(+value) ? Math.min(high, Math.max(low, +value)) : 0);

function parseSteps(text) {
  const found = (text ?? "").split("_").map((part) => within(part, -FURTHEST, FURTHEST));
  return Array.from({ length: DIRECTIONS }, (_, k) => found[k] ?? 0);
}
