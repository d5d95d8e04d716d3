// The overview: asked for every few seconds, shown in place, so that neither the focus nor what was opened is lost.

import * as api from "./api.js";
import { el, facts } from "./dom.js";
import { TaskSection } from "./overview_task.js";
import { askKey, begin, failed, fine } from "./session.js";
import { amount, bytes, known, moment, percent } from "./words.js";

const EVERY_MS = 5000;
const [main, pause, when, alerts, tasks, machine] = ["main", "pause", "when", "alerts", "tasks", "machine"]
  .map((id) => document.getElementById(id));
const sections = new Map();
let timer = null, paused = false;

async function look() {
  clearTimeout(timer);
  try {
    const { body } = await api.overview();
    fine();
    show(body);
  } catch (error) {
    if (error.status === 403 && api.key.get()) askKey(error);
    else if (error.status !== 401) failed(error, look);
    if (error.status === 401 || error.status === 403) return; // until there is another key
  } finally {
    main.removeAttribute("aria-busy");
  }
  if (!paused) timer = setTimeout(look, EVERY_MS);
}

function show(told) {
  when.textContent = `${moment(told.at)}; rates of the last ${Math.max(1, Math.round(told.window_s))} s`;
  showAlerts(told.alerts);
  for (const [name, section] of sections) {
    if (told.tasks.some((task) => task.name === name)) continue;
    section.node.remove();
    sections.delete(name);
  }
  for (const task of told.tasks) {
    if (!sections.has(task.name)) {
      sections.set(task.name, new TaskSection(task.name));
      tasks.append(sections.get(task.name).node);
    }
    sections.get(task.name).show(task, told.alerts.filter((alert) => alert.task === task.name));
  }
  machine.replaceChildren(el("h2", {}, "This machine"), machineFacts(told.machine), gpus(told.machine.gpus));
}

/** Those that are open; what has not changed is not read out again. */
function showAlerts(open) {
  const text = open.length === 0 ? "No alert is open." : `${open.length} open alert${open.length === 1 ? "" : "s"}`;
  const list = el("ul", {}, open.map((alert) =>
    el("li", {}, el("strong", {}, `${alert.task}: ${alert.kind}. `), alert.why, el("span", { class: "hint" }, ` Since ${moment(alert.opened_at)}.`))));
  const shown = el("div", { class: open.length === 0 ? "calm" : "refusal" }, el("p", {}, text), open.length > 0 && list);
  if (alerts.textContent !== shown.textContent) alerts.replaceChildren(shown);
}

function machineFacts(found) {
  const free = found.disk_free_bytes;
  return facts([
    ["Disk free", free === null ? null : `${bytes(free)}, ${percent(free / found.disk_size_bytes)}`],
    ["Gateway's memory", known(found.gateway_memory_bytes, bytes)],
    ["Gateway's CPU", known(found.gateway_cpu_cores, (cores) => `${amount(cores)} cores`)],
  ]);
}

const gpus = (cards) => cards.map((card) => facts([
  [`GPU ${card.index}`, card.name],
  ["Busy", percent(card.busy)],
  ["Memory", `${bytes(card.memory_used_bytes)} of ${bytes(card.memory_bytes)}`],
  ["Temperature", `${card.temperature_c} °C`],
  ["Power", known(card.power_w, (watts) => `${Math.round(watts)} W`)],
]));

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  if (paused) clearTimeout(timer);
  else look();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused) look();
});
begin(look);
look();
