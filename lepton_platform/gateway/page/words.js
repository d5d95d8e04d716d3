// Figures, times and faults as people read them.

/** 0.98455 → "98.5 %". What is not quite nothing, or not quite all, is not rounded to it. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  if (share >= 0.9995 && share < 1) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function bytes(size) {
  if (size < 1000) return `${size} B`;
  if (size >= 1e9) return `${(size / 1e9).toFixed(1)} GB`;
  return size < 1e6 ? `${(size / 1000).toFixed(size < 1e4 ? 1 : 0)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

/** Three digits that count: "0.0123", "4.56", "123". */
export function amount(number) {
  return number === 0 ? "0" : number >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3)));
}

/** Seconds as milliseconds: "0.42 ms", "1,250 ms". */
export function milliseconds(seconds) {
  const ms = 1000 * seconds;
  return `${ms >= 100 ? Math.round(ms).toLocaleString("en") : amount(ms)} ms`;
}

/** `said(value)`, or a dash of what is not known. */
export const known = (value, said) => (value === null || value === undefined ? "–" : said(value));

/** Seconds of a duration: "0.32 s", "1 min 5 s". */
export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** "0:07" of a clock. */
export function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

/** An ISO 8601 time, in UTC: "2026-11-25 01:30:48 UTC". */
export function moment(iso) {
  const when = new Date(iso);
  return Number.isNaN(when.getTime()) ? String(iso) : `${when.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

const TITLES = {
  401: "A key is needed",
  403: "This key may not do that",
  404: "It is not there",
  408: "That took too long to arrive",
  413: "That is too much",
  415: "This kind is not taken",
  422: "The service cannot use this",
  429: "Too many requests for now",
  500: "The service has a fault",
  502: "No service behind the gateway answers",
  503: "The service cannot answer just now",
  504: "The service took too long",
  file: "A file cannot be read",
};

/**
 * A fault as a title and sentences. `values`: what was sent, so that `images[1]` of several can be called by its name.
 */
export function inWords(error, values = []) {
  if (error.status === undefined) return { title: "The page has a fault", text: String(error.message || error) };
  if (error.status === 0) return unreachable(values);
  const parts = [error.message];
  const index = /\[(\d+)\]/.exec(error.field || "")?.[1];
  if (index !== undefined && values.length > 1) parts.push(`It is about ${values[Number(index)]?.name}.`);
  else if (error.field && !error.message.includes(error.field)) parts.push(`It is about ${error.field}.`);
  const when = error.retryAfter && new RegExp(`\\b${error.retryAfter} s`).test(error.message); // told already
  if (error.retryAfter && !when) parts.push(`Try again in ${count(error.retryAfter, "second")}.`);
  return { title: TITLES[error.status] || `The gateway answered ${error.status}`, text: parts.join(" ") };
}

/** A server that will not read all of a large body closes the connection, and browsers do not show its answer. */
function unreachable(values) {
  const size = values.reduce((sum, value) => sum + (value.file?.size || 0), 0);
  const large = size > 1e6 ? ` What was sent has ${bytes(size)}; it may have been too much.` : "";
  return {
    title: "The gateway cannot be reached",
    text: `It may have stopped, or the connection broke. What you gave is still here: try again.${large}`,
  };
}
