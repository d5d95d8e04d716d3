// One task of the overview: its frame is made once, what stands in it is made anew with each look.

import { el, facts, newId } from "./dom.js";
import { amount, bytes, known, milliseconds, moment, percent } from "./words.js";

const VERDICTS = { passed: "Passed", failed: "Failed", not_judged: "Not judged" };
const QUANTILES = [["p50", "p50_s"], ["p95", "p95_s"], ["p99", "p99_s"]];

export class TaskSection {
  constructor(name) {
    const title = newId("task");
    this.state = el("span", { class: "state" });
    this.parts = Object.fromEntries(["summary", "versions", "stages", "drift", "quality", "retrain"].map((part) => [part, el("div")]));
    this.events = el("div", { class: "events" });
    this.node = el("section", { class: "card task", "aria-labelledby": title },
      el("h2", { id: title }, name[0].toUpperCase() + name.slice(1), " ", this.state),
      this.parts.summary,
      part("Versions", scrolling(`Versions of ${name}`, this.parts.versions)),
      el("div", { class: "pair" },
        part("Latency by stage", scrolling(`Latency of ${name}`, this.parts.stages)),
        part("Drift", this.parts.drift)),
      el("div", { class: "pair" },
        part("Served quality", this.parts.quality),
        part("Retraining", this.parts.retrain)),
      el("details", {}, el("summary", {}, "Latest events"), this.events));
  }

  show(task, alerts) {
    this.state.textContent = alerts.length > 0 ? "needs a look" : "fine";
    this.state.classList.toggle("bad", alerts.length > 0);
    this.parts.summary.replaceChildren(summary(task));
    this.parts.versions.replaceChildren(versions(task.versions));
    this.parts.stages.replaceChildren(stages(task));
    this.parts.drift.replaceChildren(...drift(task.drift));
    this.parts.quality.replaceChildren(...quality(task.label_agreement, task.served_quality));
    this.parts.retrain.replaceChildren(retrain(task.retrain));
    this.events.replaceChildren(events(task.events));
  }
}

const part = (title, body) => el("div", { class: "part" }, el("h3", {}, title), body);

/** A table that is wider than the screen can be moved by keyboard, too. */
function scrolling(name, body) {
  body.className = "scrolling";
  for (const [attribute, value] of [["role", "region"], ["tabindex", "0"], ["aria-label", name]]) body.setAttribute(attribute, value);
  return body;
}

function table(heads, rows) {
  return el("table", { class: "figures" },
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map(([first, ...cells]) =>
      el("tr", {}, el("th", { scope: "row" }, first), cells.map((cell) => el("td", { class: "figure" }, cell))))));
}

const latency = (found) => QUANTILES.map(([, name]) => known(found[name], milliseconds));

function summary({ requests, batch_inputs: batch }) {
  return facts([
    ["Requests a second", el("span", { class: "figure", "data-figure": "per_second" }, amount(requests.per_second))],
    ["Requests, all", el("span", { class: "figure", "data-figure": "total" }, requests.total.toLocaleString("en"))],
    ["Errors", el("span", { class: "figure", "data-figure": "errors" }, errors(requests))],
    ...QUANTILES.map(([title, name]) => [title, el("span", { class: "figure", "data-figure": name }, known(requests[name], milliseconds))]),
    ["Inputs a batch", known(batch, amount)],
  ], "facts large");
}

const errors = ({ errors: many, error_share: share }) => `${many.toLocaleString("en")}${many > 0 ? `, ${percent(share)}` : ""}`;

function versions(found) {
  const heads = ["Role", "Model", "Share", "Requests/s", "Errors", ...QUANTILES.map(([title]) => title), "Memory", "CPU cores", "Up"];
  return table(heads, found.map((one) => [
    one.role, el("span", { class: "code" }, one.model), one.role === "shadow" ? "beside" : percent(one.percent / 100),
    amount(one.per_second), errors(one), ...latency(one), known(one.memory_bytes, bytes), amount(one.cpu_cores), one.up ? "yes" : "no",
  ]));
}

function stages({ requests, stages: found }) {
  const rows = [["to the answer", ...latency(requests)], ...found.map((one) => [one.name, ...latency(one)])];
  return table(["Stage", ...QUANTILES.map(([title]) => title)], rows);
}

function drift(found) {
  if (!found) return [el("p", { class: "hint" }, "It has not been checked yet.")];
  const verdict = el("p", {}, el("strong", {}, VERDICTS[found.state]), `: ${found.why} `,
    el("span", { class: "hint" }, `Checked at ${moment(found.checked_at)}, ${found.rows.toLocaleString("en")} rows.`));
  if (found.signals.length === 0) return [verdict];
  const signals = [...found.signals].sort((one, other) => other.distance / other.threshold - one.distance / one.threshold);
  const rows = signals.map((one) => [
    el("span", { title: one.method }, one.name), scale(one), one.distance.toFixed(3), one.threshold.toFixed(3), one.drifted ? "drifted" : "fine",
  ]);
  const area = scrolling("Signals of drift", el("div"));
  area.replaceChildren(table(["Signal", "0 to 1", "Distance", "Threshold", "Verdict"], rows));
  return [verdict, area];
}

/** Distance and threshold on the one scale that all signals have; the figures beside it say the same. */
function scale({ distance, threshold, drifted }) {
  const bar = el("span"), limit = el("i");
  bar.style.width = `${100 * Math.min(1, distance)}%`;
  limit.style.left = `${100 * Math.min(1, threshold)}%`;
  return el("span", { class: drifted ? "scale bad" : "scale", "aria-hidden": "true" }, bar, limit);
}

/** The check's verdict, and what labels say until the next one: the figure of how far answers agree with them. */
function quality(found, verdict) {
  const judged = !verdict ? el("p", { class: "hint" }, "It has not been judged yet.") : el("p", {},
    el("strong", {}, VERDICTS[verdict.state]), `: ${verdict.why} `,
    el("span", { class: "hint" }, "Of ", el("span", { class: "code" }, verdict.model), `, as of ${moment(verdict.as_of)}.`));
  return [judged, found.length === 0 ? el("p", { class: "hint" }, "Nobody has said yet what was right.") : agreement(found)];
}

function agreement(found) {
  return el("ul", {}, found.map((one) => el("li", {},
    el("span", { class: "code" }, one.model), ": ", el("strong", { class: "figure" }, percent(one.share)),
    ` agreement with what people said of ${one.labelled.toLocaleString("en")} answers (95 % interval ${percent(one.low)} to ${percent(one.high)}).`)));
}

function retrain(found) {
  if (!found) return el("p", { class: "hint" }, "None has been asked for.");
  return el("p", {}, el("strong", {}, found.state), `: ${found.reason} `, el("span", { class: "hint" }, `Asked for at ${moment(found.requested_at)}.`));
}

function events(found) {
  if (found.length === 0) return el("p", { class: "hint" }, "Nothing has happened yet.");
  return el("ol", {}, found.map((one) => el("li", {},
    el("time", { datetime: one.at, class: "hint" }, moment(one.at)), " ", el("strong", {}, one.what), one.why && ` ${one.why}`,
    one.who && el("span", { class: "hint" }, ` (${one.who})`))));
}
