// Requests to the gateway. Addresses are relative, so that it may stand below a path of another server.

const KEY = "lepton-key";
let kept = null; // where the browser keeps nothing for this page

/** What the gateway refused; that it could not be asked (status 0); that a file could not be read (status "file"). */
export class Refusal extends Error {
  constructor(status, message, field = null, retryAfter = null) {
    super(message);
    Object.assign(this, { status, field, retryAfter });
  }
}

/** The API key, in this tab alone. */
export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return kept;
    }
  },
  set(value) {
    kept = value;
    try {
      if (value === null) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, value);
    } catch {
      // kept in memory then
    }
  },
};

/** Ask for `path`; → { body, headers, milliseconds } of an answer in JSON, or `Refusal`. */
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  const begun = performance.now();
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin" });
    text = await response.text();
  } catch {
    throw new Refusal(0, "unreachable");
  }
  const milliseconds = performance.now() - begun;
  const body = parsed(text);
  if (!response.ok) throw refused(response, body);
  if (body === undefined) throw new Refusal(502, "The answer is not JSON; something else than the gateway gave it.");
  return { body, headers: response.headers, milliseconds };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refused(response, body) {
  const told = body?.error ?? {};
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const message = told.message || `HTTP ${response.status} ${response.statusText}`.trim();
  const refusal = new Refusal(response.status, message, told.field ?? null, seconds > 0 ? seconds : null);
  if (response.status === 401) document.dispatchEvent(new CustomEvent("keyneeded", { detail: refusal }));
  return refusal;
}

const route = (task, ...rest) => ["v1", task.name, ...rest].map(encodeURIComponent).join("/");

const asJson = (value) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(value),
});

export const tasks = () => ask("v1");

export const overview = () => ask("v1/overview");

export const description = () => ask("openapi.json");

export const lineage = (task, id) => ask(route(task, "lineage", id));

/** What is true of an answer: `{ label }` or `{ text }`. */
export const feedback = (task, id, truth) => ask(route(task, "feedback"), asJson({ feedback: [{ id, ...truth }] }));

/** `values`: [{ text }] or [{ file }]; files go as they are where the task takes them so. */
export async function predict(task, values) {
  const field = Object.keys(task.example)[0];
  if (values[0].file === undefined) {
    return ask(route(task, "predict"), asJson({ [field]: values.map((value) => value.text) }));
  }
  await Promise.all(values.map(readable));
  if (!task.content_types.includes("multipart/form-data")) {
    return ask(route(task, "predict"), asJson({ [field]: await Promise.all(values.map(({ file }) => base64(file))) }));
  }
  const form = new FormData();
  values.forEach(({ file }, index) => form.append(field, file, String(index))); // what it is called is nobody's business
  return ask(route(task, "predict"), { method: "POST", body: form });
}

/** A WebSocket to a task's `/stream`. No header can be set on one: the key is among the protocols that it offers. */
export function streamOf(task) {
  const address = new URL(route(task, "stream"), document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  return new WebSocket(address, ["lepton.stream", ...(key.get() ? [`lepton.key.${key.get()}`] : [])]);
}

/** A folder that was dropped, or a file that is no longer there, would look like a gateway that is not. */
async function readable({ name, file }) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Refusal("file", `${name} is a folder, or it was moved or changed since. Choose it again.`);
  }
}

async function base64(file) {
  const content = new Uint8Array(await file.arrayBuffer());
  let binary = "";
  for (let at = 0; at < content.length; at += 32768) binary += String.fromCharCode(...content.subarray(at, at + 32768));
  return btoa(binary);
}
