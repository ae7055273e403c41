// The way to the server: requests with the key of this tab, problems as errors, server-sent events.

import { $, clean } from "./elements.js";

export class Refused extends Error { // what the server said no to, in its own words
  constructor(status, problem) {
    super(clean(problem.detail || problem.title || `The server answered ${status}.`, 400));
    this.status = status;
  }
}
export class Unreachable extends Error {}

export async function ask(path, body, { signal, stream = false } = {}) {
  for (;;) {
    const key = sessionStorage.getItem("recgraph-key");
    const headers = { Accept: stream ? "text/event-stream" : "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    if (key) headers.Authorization = `Bearer ${key}`;
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable("The server does not answer. Is `recgraph serve` still running?");
    }
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    if (answer.status !== 401 || !(await askForKey(key))) throw new Refused(answer.status, problem);
  }
}

export async function get(path) { return (await ask(path)).json(); }

let keyAsked = null; // one dialog, however many requests wait for it
export function askForKey(tried) {
  if (sessionStorage.getItem("recgraph-key") !== tried) return Promise.resolve(true); // another request got one meanwhile
  keyAsked ??= new Promise((resolve) => {
    const dialog = $("key");
    $("key-why").textContent = tried ? "That key is not accepted. Paste another one."
      : "Paste an API key. It is kept until this tab is closed, and is sent to this server alone.";
    $("key-value").value = "";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && $("key-value").value.trim();
      $("key-value").value = "";
      if (given) sessionStorage.setItem("recgraph-key", given);
      keyAsked = null;
      resolve(Boolean(given));
    }, { once: true });
  });
  return keyAsked;
}

// Yields [event, data] of a text/event-stream.
export async function* told(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try { part = await reader.read(); } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable("The server went away before its answer was complete.");
    }
    rest += part.done ? "\n\n" : part.value.replace(/\r\n?/g, "\n");
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const field = (key) => lines.filter((line) => line.startsWith(`${key}:`)).map((line) => line.slice(key.length + 1).trimStart());
      const data = field("data").join("\n");
      if (data) yield [field("event")[0] || "message", JSON.parse(data)];
    }
    if (part.done) return;
  }
}
