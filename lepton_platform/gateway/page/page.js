// The page: which tasks there are, the key where one is needed, a tab a task.

import * as api from "./api.js";
import { el } from "./dom.js";
import { begin, failed, fine } from "./session.js";
import { taskPanel, title } from "./task.js";

const [main, place] = ["main", "tasks"].map((id) => document.getElementById(id));
const NOTHING = "No model serves yet. When one has been deployed, it will be here.";
const KINDS = { text: "text", image: "pictures", audio: "speech" };

/** Ask what there is and show it; tabs that are there already, with all that was given in them, stay. */
async function start() {
  main.setAttribute("aria-busy", "true");
  try {
    const { body } = await api.tasks();
    fine();
    if (!tab()) place.replaceChildren(body.tasks.length > 0 ? tabs(body.tasks) : el("p", { class: "card" }, NOTHING));
  } catch (error) {
    if (!tab()) place.replaceChildren();
    if (error.status !== 401) failed(error, restart); // a key is asked for then
  } finally {
    main.removeAttribute("aria-busy");
  }
}

/** The tab that is open; null while there are none. */
const tab = () => place.querySelector("[role=tab][aria-selected=true]");

const restart = () => start().then(() => tab()?.focus());

function tabs(tasks) {
  const list = el("div", { role: "tablist", "aria-label": "Tasks", class: "tabs" });
  const panels = tasks.map((task, index) => el("section", {
    role: "tabpanel", id: `panel-${index}`, "aria-labelledby": `tab-${index}`,
  }, taskPanel(task)));
  const buttons = tasks.map((task, index) => el("button", {
    type: "button", role: "tab", id: `tab-${index}`, "aria-controls": `panel-${index}`, onclick: () => choose(index),
  }, el("span", {}, title(task)), el("span", { class: "kind" }, KINDS[task.kind] ?? task.kind)));

  function choose(chosen) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === chosen));
      button.tabIndex = index === chosen ? 0 : -1;
      panels[index].hidden = index !== chosen;
    });
    history.replaceState(null, "", `#${encodeURIComponent(tasks[chosen].name)}`);
  }

  list.addEventListener("keydown", ({ key }) => {
    const at = buttons.indexOf(document.activeElement), last = buttons.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[key];
    if (at < 0 || to === undefined) return;
    choose(to);
    buttons[to].focus();
  });
  list.append(...buttons);
  const named = tasks.findIndex((task) => `#${encodeURIComponent(task.name)}` === location.hash);
  choose(Math.max(0, named));
  return el("div", {}, list, panels);
}

/** A link cannot carry the key: with one, what it leads to is fetched and opened beside. */
async function describe(event) {
  if (!api.key.get()) return;
  event.preventDefault();
  try {
    const { body } = await api.description();
    const file = new Blob([JSON.stringify(body, null, 2)], { type: "application/json" });
    window.open(URL.createObjectURL(file), "_blank", "noopener");
  } catch (error) {
    if (error.status !== 401) failed(error, restart);
  }
}

// A file that misses its place must not take the page away.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
document.getElementById("description").addEventListener("click", describe);
begin(restart);
start();
