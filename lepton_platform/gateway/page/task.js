// One task: what is given, the asking, the answers.

import * as api from "./api.js";
import { answerCard, inShort } from "./answer.js";
import { Addresses, el, newId } from "./dom.js";
import { inputFor } from "./inputs.js";
import { count, inWords } from "./words.js";

export function taskPanel(task) {
  const input = inputFor(task), addresses = new Addresses();
  const button = el("button", { type: "submit", class: "main" }, "Predict");
  const example = el("button", { type: "button" }, "Use an example");
  const status = el("p", { class: "status", role: "status" });
  const problem = el("div", { role: "alert", id: newId("problem") });
  const answers = el("section", { class: "answers", "aria-label": "Answers" });
  const form = el("form", { class: "card", novalidate: true },
    input.node, el("div", { class: "row" }, button, example), problem, status);
  let busy = false;

  function refuse(title, text) {
    problem.replaceChildren(el("p", { class: "refusal" }, el("strong", {}, title), text && ` ${text}`));
    input.control.setAttribute("aria-invalid", "true");
    input.control.setAttribute("aria-errormessage", problem.id);
    status.textContent = "";
  }

  function clear() {
    problem.replaceChildren();
    input.control.removeAttribute("aria-invalid");
    input.control.removeAttribute("aria-errormessage");
  }

  function setBusy(now) {
    busy = now;
    answers.setAttribute("aria-busy", String(now));
    button.setAttribute("aria-disabled", String(now)); // not `disabled`, which would lose the focus
  }

  function show(values, { body, headers, milliseconds }) {
    const told = { model: body.model, deployment: headers?.get("X-Deployment"), milliseconds }; // a stream's answer has no headers
    addresses.release();
    answers.replaceChildren(...body.predictions.map((prediction, index) =>
      answerCard(task, values[index], prediction, told, addresses)));
    const what = body.predictions.length === 1 ? inShort(body.predictions[0]) : count(body.predictions.length, "answer");
    status.textContent = `Answered in ${Math.round(milliseconds)} ms: ${what}`;
  }

  async function ask() {
    const values = input.values();
    clear();
    if (values.length === 0) {
      refuse(input.missing);
      input.control.focus();
      return;
    }
    setBusy(true);
    status.textContent = "Asking the model…";
    try {
      show(values, await api.predict(task, values));
    } catch (error) {
      const { title, text } = inWords(error, values);
      answers.replaceChildren(); // they are not to what was asked now
      refuse(`${title}.`, text);
    } finally {
      setBusy(false);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!busy) ask();
  });
  form.addEventListener("given", clear);
  form.addEventListener("answered", ({ detail }) => show(detail.values, detail)); // while it was spoken
  example.addEventListener("click", () => {
    clear();
    input.example();
    status.textContent = "An example is there; ask the model.";
  });
  return el("div", {}, about(task), form, answers);
}

function about(task) {
  return el("div", { class: "about" },
    el("h2", {}, title(task)),
    el("p", { class: "quiet" },
      task.model ? ["Model ", el("span", { class: "code" }, task.model)] : "No model serves it yet",
      task.labels.length > 0 && ` · ${task.labels.length === 1 ? "label" : "labels"} ${listed(task.labels)}`));
}

export function title(task) {
  return task.name.charAt(0).toUpperCase() + task.name.slice(1).replaceAll("_", " ");
}

function listed(labels) {
  const [shown, more] = [labels.slice(0, 12), labels.length - 12];
  return more > 0 ? `${shown.join(", ")} and ${more} more` : shown.join(", ");
}
