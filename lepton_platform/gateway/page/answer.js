// One answer: what the model says, who said it, where it came from, and what it should have been.

import { boxesView, found } from "./box_list.js";
import { disclosure, el, facts, newId } from "./dom.js";
import { correctable, correction } from "./feedback.js";
import { showLineage } from "./lineage.js";
import { duration, percent } from "./words.js";

const MOST_BARS = 10;

/** An answer in a sentence, for the line that screen readers read out. */
export function inShort(prediction) {
  if (prediction.boxes) return found(prediction.boxes);
  if (prediction.text !== undefined) return prediction.text ? `“${prediction.text}”` : "Nothing was said.";
  return prediction.label === undefined ? "an answer of another kind" : `${prediction.label}, ${percent(prediction.score)}`;
}

/**
 * The card of an answer. `value`: what was asked, { name, text } or { name, file }; `told`: { model, deployment,
 * milliseconds } of the request; `addresses` hold the file's address for as long as the card is there.
 */
export function answerCard(task, value, prediction, told, addresses) {
  const id = newId("answer");
  return el("article", { class: "card answer", "aria-labelledby": id },
    el("h3", { id, class: "unseen" }, `Answer to ${value.name}`),
    said(task, value, prediction, addresses),
    facts([
      ["Model", el("span", { class: "code" }, told.model)],
      ["Deployment", told.deployment && `#${told.deployment}`],
      ["Answered in", `${Math.round(told.milliseconds)} ms`],
      ["Id", el("span", { class: "code" }, prediction.id)],
    ], "facts line"),
    actions(task, prediction));
}

function said(task, value, prediction, addresses) {
  const address = value.file && addresses.of(value.file);
  if (prediction.boxes) return boxesView(task, address, value.name, prediction.boxes);
  if (prediction.text !== undefined) return heard(value.name, address, prediction);
  if (prediction.label === undefined) return el("pre", { tabindex: 0 }, JSON.stringify(prediction, null, 2));
  const label = el("div", { class: "beside" },
    value.text && el("blockquote", {}, value.text),
    el("p", { class: "verdict" }, prediction.label, el("span", { class: "figure" }, percent(prediction.score))),
    bars(scoresOf(task, prediction)));
  if (task.kind !== "image") return label;
  return el("div", { class: "seen" }, shown(address, value.name), label);
}

function shown(address, name) {
  const picture = el("img", { alt: name });
  picture.addEventListener("load", () => {
    picture.classList.toggle("enlarged", Math.max(picture.naturalWidth, picture.naturalHeight) < 160);
  });
  picture.addEventListener("error", () => {
    picture.replaceWith(el("span", { class: "blank" }, "This browser cannot show files of this kind."));
  });
  picture.src = address;
  return el("figure", { class: "small" }, picture, el("figcaption", { class: "hint" }, name));
}

/** All labels' shares where they are told, or follow; the likeliest first. */
function scoresOf(task, { label, score, scores }) {
  let known = scores ?? { [label]: score };
  if (!scores && task.labels.length === 2) {
    known = Object.fromEntries(task.labels.map((one) => [one, one === label ? score : 1 - score]));
  }
  return Object.entries(known).sort(([, a], [, b]) => b - a);
}

function bars(scores) {
  const rows = scores.slice(0, MOST_BARS).map(([label, share]) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.width = `${100 * share}%`;
    return el("tr", {}, el("th", { scope: "row" }, label), el("td", { class: "wide" }, bar), el("td", { class: "figure" }, percent(share)));
  });
  const more = scores.length - rows.length;
  return el("table", { class: "bars" },
    el("caption", { class: "unseen" }, more > 0 ? `The ${rows.length} likeliest labels` : "How likely each label is"),
    el("thead", { class: "unseen" }, el("tr", {}, ["Label", "Bar", "Likelihood"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows));
}

function heard(name, address, { text, score, words = [], duration_s: seconds }) {
  return el("div", { class: "heard" },
    el("p", { class: "verdict" }, text ? el("q", {}, text) : "Nothing was said.",
      text && score !== undefined && el("span", { class: "figure" }, percent(score))),
    el("audio", { src: address, controls: true, preload: "metadata", "aria-label": `Listen to ${name}` }),
    words.length > 0 && el("ol", { class: "words", "aria-label": "Words and their seconds" }, words.map((word) =>
      el("li", {}, el("span", {}, word.word), el("span", { class: "hint" }, `${word.start_s.toFixed(2)} to ${word.end_s.toFixed(2)} s`)))),
    seconds !== undefined && el("p", { class: "hint" }, `${name}, ${duration(seconds)}`));
}

function actions(task, prediction) {
  const past = el("section", { class: "past", "aria-label": "Lineage" });
  const buttons = [disclosure("Lineage", past, () => showLineage(task, prediction.id, past))];
  const areas = [past];
  if (correctable(prediction)) {
    const form = correction(task, prediction);
    const wrong = el("section", { class: "wrong", "aria-label": "Correction" }, form.node);
    buttons.push(disclosure("This is wrong", wrong, form.focus));
    areas.push(wrong);
  }
  return el("div", { class: "actions" }, el("div", { class: "row" }, buttons), areas);
}
