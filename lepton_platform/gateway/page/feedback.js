// "This is wrong": what the right answer would have been.

import * as api from "./api.js";
import { el, newId } from "./dom.js";
import { inWords } from "./words.js";

/** May people correct such an answer here? Boxes would have to be drawn; the API takes them. */
export function correctable(prediction) {
  return prediction.label !== undefined || prediction.text !== undefined;
}

/** A form that sends the right answer, once. */
export function correction(task, prediction) {
  const wanted = prediction.label !== undefined ? rightLabel(task, prediction) : rightText(prediction);
  const said = el("p", { role: "status" });
  const form = el("form", { class: "correction", novalidate: true },
    wanted.node,
    el("button", { type: "submit" }, "Send the correction"),
    said);
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const truth = wanted.truth();
    if (busy) return;
    if (truth === null) {
      said.textContent = wanted.missing;
      wanted.focus();
      return;
    }
    busy = true;
    said.textContent = "Sending…";
    try {
      await api.feedback(task, prediction.id, truth);
      said.textContent = `Noted: “${Object.values(truth)[0]}”. Thank you; it will be learned from.`;
    } catch (error) {
      const { title, text } = inWords(error);
      said.textContent = `${title}. ${text}`;
    } finally {
      busy = false;
    }
  });
  return { node: form, focus: wanted.focus };
}

function rightLabel(task, prediction) {
  const name = newId("label");
  const choices = task.labels.filter((label) => label !== prediction.label).map((label) => {
    const id = newId("choice");
    return el("span", { class: "choice" },
      el("input", { type: "radio", name, id, value: label }), el("label", { for: id }, label));
  });
  const node = el("fieldset", {}, el("legend", {}, "The right label"), choices);
  return {
    node,
    missing: "Choose the right label first.",
    focus: () => node.querySelector("input")?.focus(),
    truth() {
      const chosen = node.querySelector("input:checked");
      return chosen ? { label: chosen.value } : null;
    },
  };
}

function rightText(prediction) {
  const id = newId("said");
  const area = el("textarea", { id, rows: 2, maxlength: 5000 });
  area.value = prediction.text;
  return {
    node: el("div", {}, el("label", { for: id }, "What was said"), area),
    missing: "Write what was said first.",
    focus: () => area.focus(),
    truth: () => (area.value.trim() ? { text: area.value.trim() } : null),
  };
}
