// What people give: a text, pictures, recordings.
//
// An input is { node, control, missing, values(), show(values), example() }: its element, what the focus goes to where
// something is wrong, what to say where nothing was given, and what was given: [{ name, text }] or [{ name, file }].

import { Addresses, el, newId } from "./dom.js";
import { live } from "./live.js";
import { MOST_SECONDS, hindrance, record } from "./record.js";
import { bytes, clock } from "./words.js";

export function inputFor(task) {
  if (task.kind === "text") return textInput(task);
  return fileInput(task, task.kind === "audio" ? AUDIO : IMAGE);
}

const IMAGE = {
  accept: "image/*,.tif,.tiff,.webp",
  invitation: "Drop pictures here, or choose files",
  hint: "JPEG, PNG, TIFF or WebP; several at once if you like.",
  missing: "Choose a picture first.",
  example: "example picture",
  preview: (address, name) => el("img", { src: address, alt: name }),
  extra: () => [],
};

const AUDIO = {
  accept: "audio/*,.wav,.flac,.ogg,.opus,.mp3",
  invitation: "Drop recordings here, or choose files",
  hint: `WAV, FLAC, OGG or MP3, up to ${MOST_SECONDS} seconds.`,
  missing: "Choose or record something first.",
  example: "example recording",
  preview: (address, name) => el("audio", { src: address, controls: true, preload: "metadata", "aria-label": name }),
  extra: recording,
};

/** The example's values, as the API shows them. */
function examples(task) {
  return Object.values(task.example)[0];
}

function textInput(task) {
  const id = newId("text");
  const control = el("textarea", { id, rows: 4, "aria-describedby": `${id}-hint` });
  control.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) control.form.requestSubmit();
  });
  let next = 0;
  return {
    node: el("div", { class: "give" },
      el("label", { for: id }, "Text"),
      control,
      el("p", { id: `${id}-hint`, class: "hint" }, "Ctrl + Enter sends it.")),
    control,
    missing: "Type a text first.",
    values: () => (control.value.trim() ? [{ name: "what you typed", text: control.value }] : []),
    example() {
      const texts = examples(task);
      control.value = texts[next % texts.length];
      next += 1;
    },
  };
}

/** Several files, dropped or chosen; what is given next takes the place of what was given before. */
function fileInput(task, kind) {
  const id = newId("files"), addresses = new Addresses();
  const control = el("input", {
    type: "file", id, multiple: true, accept: kind.accept, class: "unseen", "aria-describedby": `${id}-hint`,
  });
  const chosen = el("ul", { class: `chosen ${task.kind}`, "aria-label": "Chosen" });
  const zone = el("label", { class: "drop", for: id },
    control, el("span", { class: "invitation" }, kind.invitation), el("span", { id: `${id}-hint`, class: "hint" }, kind.hint));
  let values = [];

  function show(given) {
    addresses.release();
    values = given;
    chosen.replaceChildren(...given.map(({ name, file }) => el("li", {},
      kind.preview(addresses.of(file), name),
      el("p", { class: "hint" }, el("span", { class: "name" }, name), ` ${bytes(file.size)}`))));
    chosen.querySelectorAll("img").forEach((image) => image.addEventListener("error", () => {
      image.replaceWith(el("span", { class: "blank" }, "no preview"));
    }));
    zone.dispatchEvent(new CustomEvent("given", { bubbles: true }));
  }

  const take = (files) => files.length && show([...files].map((file) => ({ name: file.name, file })));
  control.addEventListener("change", () => {
    take(control.files);
    control.value = ""; // the same file may be chosen again
  });
  droppable(zone, take);
  return {
    node: el("div", { class: "give" }, zone, kind.extra(task, show), chosen),
    control,
    missing: kind.missing,
    values: () => values,
    example() {
      const contents = examples(task).map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
      show(contents.map((content) => ({ name: kind.example, file: new Blob([content]) })));
    },
  };
}

function droppable(zone, take) {
  let depth = 0; // "leave" comes for every child that is entered
  const over = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  zone.addEventListener("dragenter", () => over(1));
  zone.addEventListener("dragleave", () => over(-1));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(0);
    take(event.dataTransfer.files);
  });
}

/**
 * A button that records, and stops; what was recorded is shown like a file that was dropped. A task that takes streams
 * hears meanwhile, and its answer is there at the end: the event "answered" with { values, body, milliseconds }.
 */
function recording(task, show) {
  const problem = hindrance();
  if (problem) return [el("p", { class: "hint" }, problem)];
  const button = el("button", { type: "button", class: "record" }, "Record with the microphone");
  const time = el("span", { class: "time", role: "timer", "aria-live": "off" });
  const said = el("p", { class: "hint", role: "status" });
  let current = null, number = 0;

  async function run() {
    current = await record();
    const begun = performance.now();
    const ticking = setInterval(() => { time.textContent = clock((performance.now() - begun) / 1000); }, 250);
    button.textContent = "Stop recording";
    button.classList.add("running");
    said.textContent = "Recording; speak now.";
    const hearing = task.stream && live(task, current.stream, (text) => { said.textContent = `“${text}”`; });
    hearing?.catch?.(() => {}); // what failed is told at the end
    const file = await current.done.finally(() => clearInterval(ticking));
    number += 1;
    const values = [{ name: `recording ${number}`, file }];
    show(values);
    said.textContent = "Recorded.";
    if (hearing) await answered(values, hearing);
  }

  async function answered(values, hearing) {
    try {
      const { end, answer } = await hearing;
      end();
      button.dispatchEvent(new CustomEvent("answered", { bubbles: true, detail: { values, ...await answer } }));
    } catch (error) { // the recording is there all the same
      said.textContent = `Recorded, but not heard meanwhile: ${error.message}`;
    }
  }

  button.addEventListener("click", async () => {
    if (current) {
      current.stop?.();
      return;
    }
    current = {}; // until the browser has asked whether it may
    try {
      await run();
    } catch (error) {
      said.textContent = error.message;
    } finally {
      current = null;
      time.textContent = "";
      button.textContent = "Record with the microphone";
      button.classList.remove("running");
    }
  });
  return [el("div", { class: "row" }, button, time), said];
}
