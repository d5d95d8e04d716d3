// A picture with the boxes that were found in it, and the same boxes as a list that the arrow keys walk through.

import { el, newId } from "./dom.js";
import { Drawing } from "./draw.js";
import { count, percent } from "./words.js";

const SURE = 0.3; // what is less sure is shown when asked for
const MOST_LINES = 400;

/** "8 boxes, 46 less sure". */
export function found(boxes, least = SURE) {
  if (boxes.length === 0) return "Nothing was found.";
  const sure = boxes.filter((box) => box.score >= least).length;
  const fewer = boxes.length - sure;
  return count(sure, "box", "boxes") + (fewer > 0 ? `, ${fewer.toLocaleString("en")} less sure` : "");
}

export function boxesView(task, address, name, boxes) {
  const drawing = new Drawing(address, name, task.labels);
  const list = el("ol", { class: "boxes", role: "listbox", tabindex: 0, "aria-label": "Boxes, the surest first" });
  const summary = el("p", { class: "strong", role: "status" });
  const slider = el("input", { type: "range", min: 0, max: 1, step: 0.01, value: SURE, id: newId("sure") });
  const output = el("output", { for: slider.id });
  let shown = [], chosen = null;

  function choose(index) {
    list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    chosen = index;
    const line = index === null ? null : list.children[index];
    line?.setAttribute("aria-selected", "true");
    line?.scrollIntoView({ block: "nearest" });
    if (line) list.setAttribute("aria-activedescendant", line.id);
    else list.removeAttribute("aria-activedescendant");
    drawing.paint(shown, chosen);
  }

  function filter() {
    const least = Number(slider.value);
    output.textContent = percent(least);
    slider.setAttribute("aria-valuetext", percent(least));
    shown = boxes.filter((box) => box.score >= least);
    const lines = shown.slice(0, MOST_LINES);
    list.replaceChildren(...lines.map((box, index) => line(box, index, () => choose(index))));
    list.hidden = lines.length === 0;
    summary.textContent = found(boxes, least) + (lines.length < shown.length ? `; the first ${lines.length} are listed` : "");
    choose(null);
  }

  slider.addEventListener("input", filter);
  list.addEventListener("keydown", (event) => {
    const to = { ArrowDown: (chosen ?? -1) + 1, ArrowUp: (chosen ?? 1) - 1, Home: 0, End: list.children.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(list.children.length - 1, to)));
  });
  filter();
  return el("div", { class: "seen" },
    el("figure", {}, drawing.node, el("figcaption", { class: "hint" }, name)),
    el("div", { class: "beside" },
      summary,
      boxes.length > 0 && el("div", { class: "sure" }, el("label", { for: slider.id }, "Surer than"), slider, output),
      list));
}

function line(box, index, chosen) {
  const corners = box.box.map((value) => Math.round(value));
  return el("li", { role: "option", id: newId("box"), "aria-selected": "false", onclick: chosen, onmouseenter: chosen },
    el("span", { class: "number" }, String(index + 1)),
    el("span", {}, box.label),
    el("span", { class: "figure" }, percent(box.score)),
    el("span", { class: "hint" }, `${corners[0]}, ${corners[1]} – ${corners[2]}, ${corners[3]}`));
}
