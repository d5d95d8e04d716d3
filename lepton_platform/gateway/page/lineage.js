// From an answer back to everything that it was made of: prediction, deployment, Bento, stages.

import * as api from "./api.js";
import { el, facts } from "./dom.js";
import { count, duration, inWords, moment } from "./words.js";

const SHORT = 12; // letters of a hash that tell it from others; all of them are in the JSON

/** Ask for the lineage of a prediction and show it in `area`. */
export async function showLineage(task, id, area) {
  area.setAttribute("aria-busy", "true");
  area.replaceChildren(el("p", { class: "quiet", role: "status" }, "Looking it up…"));
  try {
    const { body } = await api.lineage(task, id);
    area.replaceChildren(chain(body), raw(body));
  } catch (error) {
    const { title, text } = inWords(error);
    area.replaceChildren(el("p", { class: "refusal", role: "alert" }, el("strong", {}, `${title}. `), text));
  } finally {
    area.removeAttribute("aria-busy");
  }
}

/** The last first: each link was made of those below it. */
function chain(past) {
  const stages = Object.entries(past.stages ?? {}).reverse();
  return el("ol", { class: "chain", "aria-label": "Lineage, the answer first" },
    prediction(past.prediction ?? {}),
    deployment(past.deployment),
    bento(past.bento ?? {}),
    stages.map(([name, entry]) => stage(name, entry, name === "dataset" ? past.training_rows : null)));
}

function link(kind, name, pairs, note) {
  return el("li", {},
    el("h4", {}, kind, name && [" ", el("span", { class: "code" }, name)]),
    note && el("p", { class: "hint" }, note),
    facts(pairs));
}

function prediction(row) {
  const said = (row.feedback ?? []).map((one) => {
    const { at, ...truth } = one;
    return el("span", { class: "said" }, `${told(Object.values(truth)[0])} (${moment(at)})`);
  });
  return link("Prediction", row.id, [["Answered", time(row.at)], ["Model took", row.latency_ms && `${row.latency_ms.toFixed(1)} ms`], ["People said", said.length ? said : null]]);
}

function told(truth) {
  return typeof truth === "string" ? `“${truth}”` : count(truth?.length ?? 0, "box", "boxes");
}

function deployment(row) {
  if (!row) return link("Deployment", null, [], "None is on record: this Bento was run by hand.");
  return link("Deployment", `#${row.id}`, [
    ["State", row.state],
    ["Since", time(row.created_at)],
    ["Until", row.ended_at && time(row.ended_at)],
  ], row.reason);
}

function bento({ tag, manifest = {} }) {
  return link("Bento", tag, [["Labels", manifest.labels?.length ? manifest.labels.join(", ") : null]], manifest.metrics?.verdict);
}

function stage(name, { version, made_by: by = {} }, rows) {
  return link(name, short(version), [
    ["Made", by.started_at && time(by.started_at)],
    ["Took", by.seconds === undefined ? null : duration(by.seconds)],
    ["Run", by.run_id && code(by.run_id)],
    ["Commit", by.git_commit && code(by.git_commit)],
    ["Rows", by.rows?.toLocaleString?.("en")],
    ["Learned from", rows && count(rows.count, "row")],
  ], by.note);
}

const short = (hash) => String(hash ?? "").slice(0, SHORT);
const code = (hash) => el("span", { class: "code", title: hash }, short(hash));
const time = (iso) => iso && el("time", { datetime: iso }, moment(iso));

/** As it came; written out only when it is opened: it is long. */
function raw(body) {
  const text = el("pre", { tabindex: 0, role: "region", "aria-label": "Lineage as JSON" });
  const all = el("details", {}, el("summary", {}, "As JSON"), text);
  all.addEventListener("toggle", () => {
    if (all.open && !text.textContent) text.textContent = JSON.stringify(body, null, 2);
  });
  return all;
}
