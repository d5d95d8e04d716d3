// The key of a session, kept in this tab alone, and what could not be done: the same on every page.

import * as api from "./api.js";
import { el } from "./dom.js";
import { inWords } from "./words.js";

const [notice, keyForm, keyField, session, forget] = ["notice", "key", "key-value", "session", "forget"]
  .map((id) => document.getElementById(id));

/** Read out at once; the same words again are not. */
export function tell(...words) {
  const told = el("div", { class: "refusal" }, words);
  if (notice.textContent !== told.textContent) notice.replaceChildren(told);
}

/** The gateway answered: nothing is wrong (any more), no key is missing. */
export function fine() {
  keyForm.hidden = true;
  notice.replaceChildren();
  session.hidden = !api.key.get();
}

/** What went wrong, and a button that tries again. */
export function failed(error, again) {
  const { title, text } = inWords(error);
  tell(el("p", {}, el("strong", {}, `${title}.`), ` ${text}`), el("button", { type: "button", onclick: again }, "Try again"));
}

/** Ask for a key, and call `restart` with each that is given. */
export function begin(restart) {
  document.addEventListener("keyneeded", ({ detail }) => askKey(detail));
  keyForm.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(restart);
  });
  forget.addEventListener("click", () => {
    api.key.set(null);
    location.reload();
  });
}

/** A key is missing, is no longer good, or does not reach so far. */
export function askKey({ message }) {
  if (api.key.get()) tell(el("strong", {}, "The key was refused."), ` ${message}`);
  api.key.set(null);
  session.hidden = true;
  keyForm.hidden = false;
  keyField.focus();
}

function useKey(restart) {
  const given = keyField.value.trim();
  if (!/^[\x21-\x7e]+$/.test(given)) { // no other could stand in a header
    tell("A key has only letters, figures and signs, without spaces.");
    keyField.focus();
    return;
  }
  keyField.value = "";
  api.key.set(given);
  restart();
}
