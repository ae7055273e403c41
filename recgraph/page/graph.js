// The eight nodes of a run, lit as they end. It knows their names, and nothing of answers.

import { $, make, took } from "./elements.js";

const NODES = [
  ["load_history", "History", "Reading what this shopper did"],
  ["understand", "Wish", "Working out what is asked for"],
  ["recall_memory", "Memory", "Recalling what similar searches led to"],
  ["summarize", "Summary", "Summing up what they like"],
  ["recommend", "Model", "Asking the language model for the next product"],
  ["retrieve", "Retrieve", "Finding candidates in the catalogue"],
  ["rerank", "Rank", "Putting the candidates in order"],
  ["explain", "Reasons", "Writing down why"],
];
const PACE = 45; // least ms between two nodes lighting up, so that each is seen
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function drawNodes() {
  $("nodes").replaceChildren(...NODES.map(([node, label, what]) =>
    make("li", { id: `node-${node}`, "data-state": "idle", title: what },
      make("span", { class: "dot", "aria-hidden": "true" }), make("span", { class: "label" }, label),
      make("span", { class: "ms" }, "–"))));
}

// Lights the nodes of one run as they end, one after the other, never faster than the eye follows.
export function lights() {
  const times = new Map();
  let stopped = false, queue = Promise.resolve(), last = 0;
  NODES.forEach(([node], place) => light(node, place ? "idle" : "now", "–"));
  $("now").textContent = `${NODES[0][2]} …`;
  const show = async (node) => {
    const wait = calm.matches ? 0 : last + PACE - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    if (stopped) return;
    last = performance.now();
    const place = NODES.findIndex(([one]) => one === node);
    light(node, "done", took(times.get(node)));
    const next = NODES[place + 1];
    if (next && !times.has(next[0])) light(next[0], "now", "…");
    $("now").textContent = next ? `${next[2]} …` : "Done.";
  };
  return {
    ended({ node, ms }) {
      if (!NODES.some(([one]) => one === node)) return;
      const known = times.has(node);
      times.set(node, ms);
      if (known) light(node, "done", took(ms)); // `summarize` tells of its parts, too
      else queue = queue.then(() => show(node));
    },
    async all(timings = {}, models = {}) {
      await queue;
      if (stopped) return;
      for (const [node, , what] of NODES) {
        if (node === "recommend" && models.llm === "none") {
          light(node, "skipped", "not asked");
          times.delete(node);
          continue;
        }
        const ms = timings[node] ?? times.get(node);
        light(node, ms === undefined ? "skipped" : "done", ms === undefined ? "–" : took(ms), what);
        if (ms !== undefined) times.set(node, ms);
      }
      const total = timings.total ?? [...times.values()].reduce((sum, ms) => sum + ms, 0);
      const [slowest, most] = [...times].reduce((a, b) => (b[1] > a[1] ? b : a), ["", -1]);
      const label = NODES.find(([node]) => node === slowest)?.[1].toLowerCase();
      $("now").textContent = most < 0 ? "No step had to run." : `${took(total)} in all, ${took(most)} of it for ${label}.`;
      shares(times);
    },
    stop() {
      stopped = true;
      for (const [node] of NODES) if ($(`node-${node}`).dataset.state === "now") light(node, "idle", "–");
      $("now").textContent = "The run did not end.";
    },
  };
}

function light(node, as, ms) {
  const line = $(`node-${node}`);
  line.dataset.state = as;
  line.querySelector(".ms").textContent = ms;
  if (as !== "done") line.style.setProperty("--share", 0);
}

function shares(times) { // the log of the time, so that 1 ms beside 2 s is still to be seen
  const most = Math.max(...times.values(), 1);
  for (const [node, ms] of times) {
    $(`node-${node}`).style.setProperty("--share", (Math.log1p(ms) / Math.log1p(most)).toFixed(3));
  }
}
