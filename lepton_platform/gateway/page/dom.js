// Elements without markup: what comes from people, files and services is only ever text.

let made = 0;

/** An id that no other element of the page has. */
export function newId(name) {
  made += 1;
  return `${name}-${made}`;
}

/**
 * An element. `given`: attributes; `on…` functions are listeners, `class` is the class, a boolean attribute is there or
 * not, what is null or undefined is left out. Children are nodes or text; null and false are left out.
 */
export function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A list of terms: `[[name, value], …]`; those without a value are left out. */
export function facts(pairs, className = "facts") {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: className }, known.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** A button that shows what belongs to it, and hides it again. `opened` is called each time that it is shown. */
export function disclosure(text, area, opened) {
  area.id ||= newId("area");
  area.hidden = true;
  const button = el("button", { type: "button", "aria-expanded": "false", "aria-controls": area.id }, text);
  button.addEventListener("click", () => {
    area.hidden = !area.hidden;
    button.setAttribute("aria-expanded", String(!area.hidden));
    if (!area.hidden) opened();
  });
  return button;
}

/** Addresses of files in memory, given back together. */
export class Addresses {
  #taken = [];

  of(file) {
    const address = URL.createObjectURL(file);
    this.#taken.push(address);
    return address;
  }

  release() {
    this.#taken.splice(0).forEach((address) => URL.revokeObjectURL(address));
  }
}
