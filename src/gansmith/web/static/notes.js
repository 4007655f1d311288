// The explanation of a term, while that is pointed at or has the focus: one element, put where the window has room for it.
import { h } from "./lib.js";

const EDGE = 2; // pixels to the window's edges
const note = h("div", { class: "note", role: "tooltip", hidden: true });
let explained = null;

function show(element) {
  explained = element;
  note.hidden = !element?.isConnected;
  if (note.hidden) return;
  if (note.parentNode !== document.body) document.body.append(note);
  note.textContent = element.dataset.tip;
  const [term, { width, height }] = [element.getBoundingClientRect(), note.getBoundingClientRect()];
  const fitsBelow = term.bottom + height <= innerHeight - EDGE;
  note.style.left = `${Math.max(EDGE, Math.min(term.left, document.documentElement.clientWidth - EDGE - width))}px`;
  note.style.top = `${fitsBelow ? term.bottom : Math.max(EDGE, term.top - height)}px`;
}

const termOf = (element) => element?.closest?.("[data-tip]") ?? null;
document.addEventListener("pointerover", ({ target }) => { if (target !== note) show(termOf(target) ?? termOf(document.activeElement)); });
document.addEventListener("focusin", ({ target }) => show(termOf(target)));
document.addEventListener("focusout", () => show(null));
document.addEventListener("keydown", ({ key }) => { if (key === "Escape") show(null); });
for (const name of ["scroll", "resize"]) addEventListener(name, () => { if (explained) show(explained); }, { capture: true, passive: true });
