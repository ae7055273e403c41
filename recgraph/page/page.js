// The page: asks the HTTP door, shows what comes. It keeps nothing but a key (for this tab) and the chosen theme.
// Whatever a server sends is data: it is cleaned by `clean` and set with textContent, never as markup.

import { drawn } from "./drawings.js";
import { $, clean, day, make, money, name, plural, say } from "./elements.js";
import { drawNodes, lights } from "./graph.js";
import { Refused, Unreachable, ask, askForKey, get, told } from "./server.js";

const SOURCES = { // an item's `source`, in words
  id: "the model’s pick", title: "similar title", sequence: "often next", memory: "similar searches", text: "similar text", lexical: "words of the search",
  popular: "popular now",
};
const DONE = { search: "searched", click: "looked at", cart: "put in the cart", purchase: "bought" };
const SHOWN = 12, RIBBON = 240, EVENTS_LISTED = 8;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const state = {
  user: "", fresh: false, mode: "search", query: "", thread: name(), currency: "", simulated: "", users: [],
  events: new Map(), order: new Map(), asked: "", relative: false, pending: null,
};

/* ── Asking ────────────────────────────────────────────────────────────────────────────────────────────────────── */

async function run(path, body, ends) {
  state.pending?.abort();
  const control = (state.pending = new AbortController());
  trouble(null);
  document.body.classList.add("busy");
  if (!$("products").children.length) ghosts();
  const lit = lights();
  try {
    const answer = await ask(path, body, { signal: control.signal, stream: true });
    for await (const [event, data] of told(answer)) {
      if (event === "node" || event === "step") lit.ended(data);
      else if (event === "problem" || event === "error") throw new Refused(data.status || 500, data);
      else if (event === "answer" || event === "reply") {
        await lit.all(data.timings_ms, data.models);
        if (!control.signal.aborted) return ends(data);
        return undefined;
      }
    }
    throw new Unreachable("The server went away before its answer was complete.");
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    lit.stop();
    for (const one of document.querySelectorAll(".ghost")) one.remove();
    trouble(error, () => run(path, body, ends));
    return undefined;
  } finally {
    if (state.pending === control) document.body.classList.remove("busy");
  }
}

function recommend(query = state.query, { moved = false, wish = null } = {}) {
  if (!state.user) return needShopper();
  const before = moved ? new Map(state.order) : null;
  state.query = query;
  const body = { user_id: state.user, query, k: SHOWN, thread: state.thread, stream: true };
  if (wish) body.wish = wish;
  if (state.fresh) body.new_user = true;
  return run("v1/recommendations", body, (data) => showAnswer(data, before));
}

function chat(text) {
  if (!state.user) return needShopper();
  turn("you", text);
  return run("v1/chat", { user_id: state.user, text, thread: state.thread, stream: true }, showReply);
}

function afresh() { // another conversation: nothing said before holds
  state.thread = name();
  state.order.clear();
  $("talk").replaceChildren();
}

function needShopper() {
  say("Pick a shopper first.");
  $("who").focus();
}

/* ── The answer ────────────────────────────────────────────────────────────────────────────────────────────────── */

function showAnswer(data, before) {
  const same = before && state.asked === question();
  state.asked = question();
  state.relative = Boolean(data.understood?.like); // "cheaper" asked twice would mean cheaper still
  chips(chipsOf(data.understood), data.relaxed, (part) => askWish(without(data.understood, part)));
  notes(data.degraded, data.plan, (data.items || []).length);
  show(data.items || [], same ? before : null);
  const models = data.models || {};
  const by = models.llm && models.llm !== "none" ? [models.llm, models.adapter].filter(Boolean).join(" with ") : "retrieval alone";
  $("made").textContent = clean(`Answered by ${by}. Run ${data.run_id}.`);
  const first = data.items?.[0];
  say(first ? `${plural(data.items.length, "product")} for ${spoken()}. First: ${clean(first.title || first.item_id, 120)}.`
    : "Nothing fits what was asked for.");
  refresh();
}

function showReply(data) {
  const products = data.products || [], parts = data.understood?.parts || data.understood || [];
  // The cards show what a list in the text would repeat.
  turn("shop", products.length ? data.text.split("\n").filter((line) => !/^\d+\. /.test(line)).join("\n").replace(/:$/, ".") : data.text, data.asked_back);
  if (Array.isArray(parts)) chips(parts.map((part) => [part, takeBack(part) && (() => chat(takeBack(part)))]), data.relaxed, (part) => chat(takeBack(spokenPart(part))));
  notes(data.degraded, data.plan, 1);
  if (products.length || data.run_id) show(products, null); // a turn that asks for nothing leaves what is shown
  else for (const one of document.querySelectorAll(".ghost")) one.remove();
  $("made").textContent = data.run_id ? clean(`Run ${data.run_id}.`) : "";
  refresh();
  $("words").focus({ preventScroll: true });
}

function question() { return JSON.stringify([state.user, state.query, state.thread]); }
function spoken() { return state.fresh ? "someone new" : clean(state.user, 60); }

function turn(who, text, asksBack = false) {
  const talk = $("talk");
  talk.hidden = false;
  talk.append(make("p", { class: `turn ${who}${asksBack ? " asks" : ""}` },
    make("span", { class: "sr" }, who === "you" ? "You: " : "Shop: "), clean(text, 2000)));
  while (talk.children.length > 40) talk.firstChild.remove();
  talk.scrollTop = talk.scrollHeight;
}

// What was understood as [words, what takes it back]: without that part the rest is a wish of its own.
function chipsOf(wish = {}) {
  const found = [], price = wish.price || {};
  const add = (words, change) => found.push([words, () => {
    const rest = copied(wish);
    change(rest);
    askWish(rest);
  }]);
  for (const [attribute, values] of Object.entries(wish.want || {})) add(values.join(" or "), (rest) => delete rest.want[attribute]);
  for (const [attribute, values] of Object.entries(wish.avoid || {})) {
    for (const value of values) add(`not ${value}`, (rest) => { rest.avoid[attribute] = values.filter((one) => one !== value); });
  }
  for (const [word, bound] of [["under", "at_most"], ["over", "at_least"], ["about", "about"]]) {
    if (price[bound] != null) add(`${word} ${money(price[bound], state.currency)}`, (rest) => { rest.price[bound] = null; });
  }
  if (wish.like) add([wish.like.relation, wish.like.attribute].filter(Boolean).join(" "), (rest) => { rest.like = null; });
  for (const word of wish.soft || []) add(word, (rest) => { rest.soft = rest.soft.filter((one) => one !== word); });
  if (wish.text) add(`“${wish.text}”`, (rest) => { rest.text = ""; });
  return found;
}

function copied(wish) {
  const { parts, ...rest } = structuredClone(wish);
  return rest;
}

// The wish without what one of `relaxed` names: "under 60", "size 42", "not Harrow", or several of them.
function without(wish, told) {
  const rest = copied(wish);
  for (const part of String(told).split(" and ")) {
    const [head, ...tail] = part.split(" "), value = tail.join(" ");
    if (head === "under") rest.price.at_most = null;
    else if (head === "over") rest.price.at_least = null;
    else if (head in rest.want) delete rest.want[head];
    else if (head === "not") for (const [attribute, values] of Object.entries(rest.avoid)) rest.avoid[attribute] = values.filter((one) => one !== value);
  }
  return rest;
}

function spokenPart(told) { // "under 60" with its currency, "size 42", but "category Boots" as "Boots"
  return String(told).split(" and ").map((part) => {
    const [head, ...tail] = part.split(" "), value = tail.join(" ");
    if (["under", "over"].includes(head)) return `${head} ${money(Number(value), state.currency) || value}`;
    return ["size", "not"].includes(head) || head !== head.toLowerCase() || !value ? part : value;
  }).join(" and ");
}

function askWish(wish) { // a new request: what is left, and no words that say more
  afresh();
  wish.required = (wish.required || []).filter((attribute) => attribute in (wish.want || {}));
  $("words").value = "";
  recommend("", { wish });
}

function takeBack(part) { // as a sentence of a chat
  const words = clean(part, 80).split(" ");
  if (["under", "over", "about"].includes(words[0])) return "forget the price";
  if (words[0] === "size") return "forget the size";
  if (/^[“"]/.test(part)) return "";
  return `forget the ${clean(part, 80).replace(/^not /, "").split(" or ")[0]}`;
}

function chips(parts, relaxed, giveWay) {
  const box = $("understood");
  const made = parts.map(([part, back]) => make("li", { class: "chip" }, make("bdi", {}, clean(part, 80)),
    back && make("button", { type: "button", "aria-label": `Remove ${clean(part, 80)}`, onclick: () => leave(back) }, "×")));
  const offers = (relaxed || []).map((one) => make("button", { type: "button", class: "quiet", onclick: () => leave(() => giveWay(one.part)) },
    `Without “${clean(spokenPart(one.part), 60)}”: ${plural(one.more, "more product")}`));
  box.replaceChildren();
  if (made.length) {
    box.append(make("span", { class: "lead", id: "understood-lead" }, "Understood"),
      make("ul", { class: "chips", "aria-labelledby": "understood-lead" }, ...made,
        make("li", {}, make("button", { type: "button", class: "link", onclick: startOver }, "Start over"))));
  }
  if (offers.length) box.append(make("p", { class: "offers" }, ...offers));
  box.hidden = !box.children.length;
}

function leave(does) { // the button goes with what it takes back; where the answer comes is a place to be
  $("answer").focus({ preventScroll: true });
  does();
}

function startOver() {
  afresh();
  $("words").value = "";
  chips([], []);
  if (state.mode === "chat") { $("talk").hidden = true; $("words").focus(); }
  else leave(() => recommend(""));
}

function notes(degraded, plan, found) {
  const lines = [...(degraded || []).map((note) => ["!", note]), ...(plan || []).map((note) => ["·", note])];
  const box = $("notes");
  box.replaceChildren(...lines.map(([mark, note]) => make("p", { class: mark === "!" ? "note lost" : "note" }, clean(note, 400))));
  if (!found && !(degraded || []).length) box.append(make("p", { class: "note" }, "Nothing fits what was asked for."));
  box.hidden = !box.children.length;
}

/* ── Products ──────────────────────────────────────────────────────────────────────────────────────────────────── */

function show(items, before) {
  const list = $("products");
  const places = new Map([...list.children].map((card) => [card.dataset.item, card.getBoundingClientRect()]));
  const held = document.activeElement?.closest?.(".card");
  const [heldItem, heldPart] = [held?.dataset.item, document.activeElement?.dataset.part];
  list.replaceChildren(...items.map((item, place) => card(item, place, before)));
  state.order = new Map(items.map((item, place) => [item.item_id, place]));
  $("answer-title").textContent = items.length ? (state.fresh ? "For someone new" : `For ${clean(state.user, 60)}`) : "Nothing to show";
  $("again-box").hidden = !items.length || state.mode === "chat";
  if (held) {
    const same = [...list.children].find((one) => one.dataset.item === heldItem);
    (same?.querySelector(`[data-part="${heldPart}"]`) || $("answer")).focus({ preventScroll: true });
  }
  if (before) glide(list, places);
}

function ghosts() { // where products will be
  $("products").replaceChildren(...Array.from({ length: 6 }, () => make("li", { class: "ghost", "aria-hidden": "true" })));
}

function glide(list, places) { // from where a product was to where it is
  if (calm.matches) return;
  for (const one of list.children) {
    const [was, is] = [places.get(one.dataset.item), one.getBoundingClientRect()];
    const frames = was ? [{ transform: `translate(${was.left - is.left}px, ${was.top - is.top}px)` }, { transform: "none" }]
      : [{ opacity: 0, transform: "scale(.94)" }, { opacity: 1, transform: "none" }];
    one.animate(frames, { duration: 420, easing: "cubic-bezier(.2, .7, .2, 1)" });
  }
}

function moveOf(item, place, before) {
  if (!before) return null;
  if (!before.has(item.item_id)) return ["new", "New", "new in this answer"];
  const up = before.get(item.item_id) - place;
  if (!up) return null;
  return up > 0 ? ["up", `↑ ${up}`, `up ${up}`] : ["down", `↓ ${-up}`, `down ${-up}`];
}

function card(item, place, before) {
  const title = clean(item.title, 300) || `Product ${clean(item.item_id, 60)}`;
  const moved = moveOf(item, place, before);
  const act = (action, part, label, done) => {
    const button = make("button", { type: "button", class: "act", "data-part": part, "aria-label": `${label}: ${title}`,
      onclick: () => record(item, title, action, button, done) }, label);
    return button;
  };
  const look = make("button", { type: "button", class: "look", "data-part": "look", onclick: () => record(item, title, "click", null, "") },
    make("bdi", {}, title));
  const [reasons, region] = why(item);
  return make("li", { class: `card${moved ? ` ${moved[0]}` : ""}`, "data-item": item.item_id },
    picture(item, title),
    make("div", { class: "body" },
      make("p", { class: "top" }, make("span", { class: "rank" }, String(place + 1)),
        moved && make("span", { class: `moved ${moved[0]}` }, make("span", { "aria-hidden": "true" }, moved[1]), make("span", { class: "sr" }, moved[2])),
        make("span", { class: "from" }, SOURCES[item.source] || clean(item.source, 20))),
      make("h3", {}, look),
      make("p", { class: "price" }, money(item.price, item.currency ?? state.currency) || "no price"),
      make("p", { class: "reason" }, clean(item.reason, 400)),
      make("div", { class: "acts" }, act("cart", "cart", "Add to cart", "In the cart"), act("purchase", "buy", "Buy", "Bought"),
        address(item.url) && make("a", { class: "act", href: address(item.url), target: "_blank", rel: "noopener noreferrer" }, "Page ↗"), reasons),
      region));
}

function picture(item, title) {
  const frame = make("div", { class: "picture", "aria-hidden": "true" });
  const url = address(item.image_url);
  if (url.startsWith("https:")) {
    frame.append(make("img", { src: url, alt: "", loading: "lazy", referrerpolicy: "no-referrer", onerror: () => frame.replaceChildren(drawn(item, title, frame)) }));
  } else frame.append(drawn(item, title, frame));
  return frame;
}

function address(url) { return typeof url === "string" && /^https?:\/\//i.test(url) && URL.canParse(url) ? new URL(url).href : ""; }

// The button and the region it opens; filled when it is opened, as the events may be known only by then.
function why(item) {
  const seqs = item.evidence?.event_seqs || [], queries = item.evidence?.queries || [];
  const region = make("div", { class: "why", id: `why-${name()}`, hidden: true });
  const fill = () => region.replaceChildren(
    seqs.length ? make("ol", { class: "events" }, ...seqs.slice(-EVENTS_LISTED).map(eventLine)) : "",
    queries.length ? make("p", {}, `Searches it answers: ${queries.slice(0, 5).map((query) => `“${clean(query, 60)}”`).join(", ")}`) : "",
    make("dl", {}, ...[
      ["Source", clean(item.source, 40)],
      typeof item.yes === "number" && ["The model says yes", `${Math.round(item.yes * 100)} %`],
      typeof item.score === "number" && ["Score", item.score.toFixed(2)],
      ["Id", clean(item.item_id, 80)],
    ].filter(Boolean).flatMap(([what, value]) => [make("dt", {}, what), make("dd", {}, make("bdi", {}, value))])));
  const button = make("button", { type: "button", class: "act open", "data-part": "why", "aria-expanded": "false", "aria-controls": region.id,
    "aria-label": `Why: ${clean(item.title, 120) || clean(item.item_id, 60)}`, onclick: () => {
      region.hidden = !region.hidden;
      button.setAttribute("aria-expanded", String(!region.hidden));
      fill();
      lightUp(region.hidden ? [] : seqs);
    } }, "Why");
  return [button, region];
}

function eventLine(seq) {
  const event = state.events.get(seq);
  if (!event) return make("li", {}, `Event ${seq}`);
  const what = event.action === "search" ? `“${clean(event.query, 120)}”` : clean(event.title || event.item_id, 160);
  return make("li", { "data-action": event.action }, make("span", { class: "what" }, `${DONE[event.action] || clean(event.action, 20)} `, make("bdi", {}, what)),
    make("time", { datetime: clean(event.ts, 40) }, day(event.ts)));
}

async function record(item, title, action, button, done) {
  const event = { user_id: state.user, action, item_id: item.item_id, event_id: name() };
  if (state.mode === "search" && state.query) event.query = state.query;
  trouble(null);
  try {
    await ask("v1/events", { events: [event] });
  } catch (error) {
    if (error.name !== "AbortError") trouble(error, () => record(item, title, action, button, done));
    return;
  }
  state.fresh = false; // who did something is known from now on
  $("who").value = state.user;
  if (button) button.textContent = done;
  const told = `Recorded: you ${DONE[action]} ${clean(title, 90)}.`;
  toast(told);
  say(`${told} The next answer knows it.`);
  if (state.mode === "search" && $("again").checked) await recommend(state.relative ? "" : state.query, { moved: true });
  else refresh();
}

/* ── The shopper ───────────────────────────────────────────────────────────────────────────────────────────────── */

async function refresh() { // what is known of them, after each answer: the summary is made by then
  const user = state.user;
  $("person").hidden ||= state.fresh;
  if (state.fresh) return; // nothing is known of somebody new
  const path = `v1/users/${encodeURIComponent(user)}`;
  try {
    const [summary, history] = await Promise.all([get(`${path}/summary`), get(`${path}/history?limit=100`)]);
    if (user === state.user) showPerson(summary.sentences || [], history.events || []);
  } catch (error) {
    $("person").hidden = true; // a key may be for answers alone
    if (error instanceof Unreachable) trouble(error, refresh);
  }
}

function showPerson(sentences, history) {
  state.events = new Map();
  for (const event of [...sentences.flatMap((sentence) => sentence.events || []), ...history]) state.events.set(event.seq, event);
  const newest = [...state.events.keys()].sort((a, b) => a - b);
  $("person").hidden = !newest.length;
  $("person-title").textContent = `What is known of ${spoken()}`;
  $("summary").replaceChildren(...sentences.map((sentence) => {
    const seqs = (sentence.events || []).map((event) => event.seq);
    const enter = () => pinned || tell(seqs, false);
    const leave = () => pinned || tell([], false);
    const button = make("button", { type: "button", class: "sentence", "aria-pressed": "false", onpointerenter: enter, onpointerleave: leave, onfocus: enter,
      onblur: leave, onclick: () => pin(button, seqs) }, clean(sentence.text, 500));
    return button;
  }).flatMap((button) => [button, " "]));
  $("summary-hint").hidden = !sentences.length;
  $("ribbon").replaceChildren(...newest.slice(-RIBBON).map((seq) => make("i", { "data-seq": seq, "data-action": state.events.get(seq).action })));
  pinned = null;
  tell([], false);
}

let pinned = null; // the sentence whose events stay lit
function pin(button, seqs) {
  const off = pinned === button;
  pinned?.setAttribute("aria-pressed", "false");
  pinned = off ? null : button;
  button.setAttribute("aria-pressed", String(!off));
  tell(off ? [] : seqs, !off);
}

function lightUp(seqs) {
  const lit = new Set(seqs.map(String));
  $("person").classList.toggle("pointed", lit.size > 0);
  $("ribbon").classList.toggle("lit", lit.size > 0);
  for (const tick of $("ribbon").children) tick.classList.toggle("lit", lit.has(tick.dataset.seq));
}

function tell(seqs, aloud) {
  lightUp(seqs);
  const listed = seqs.length ? seqs : [...state.events.keys()].sort((a, b) => a - b);
  const newest = listed.slice(-EVENTS_LISTED).reverse();
  $("events-title").textContent = seqs.length ? `${plural(seqs.length, "event")} behind it` : "Latest events";
  $("events").replaceChildren(...newest.map(eventLine));
  if (seqs.length > newest.length) $("events").append(make("li", { class: "more" }, `and ${seqs.length - newest.length} earlier`));
  if (aloud) say(`${plural(seqs.length, "event")} behind this sentence.`);
}

function choose(user, fresh = false) {
  state.user = user;
  state.fresh = fresh;
  state.query = $("words").value = "";
  afresh();
  chips([], []);
  $("who").value = fresh ? "" : user;
  $("who").placeholder = fresh ? "Someone new" : "Pick one, or type an id";
  $("person").hidden = true;
  closeList();
  if (state.mode === "search") recommend("");
  else refresh();
}

function options() {
  const typed = $("who").value.trim(), part = typed === state.user ? "" : typed.toLowerCase();
  const found = state.users.filter((user) => user.user_id.toLowerCase().includes(part));
  const exact = !part || found.some((user) => user.user_id.toLowerCase() === part);
  const made = found.map((user) => [user.user_id, clean(user.user_id, 60), `${plural(user.events, "event")}${user.last ? `, last ${day(user.last)}` : ""}`]);
  return exact ? made : [...made, [typed, clean(typed, 60), "as typed"]];
}

let active = -1;
function openList() {
  const list = $("shoppers");
  active = -1;
  list.replaceChildren(...options().map(([user, shown, about], place) =>
    make("li", { role: "option", id: `shopper-${place}`, "aria-selected": "false", "data-user": user, onpointerdown: (event) => { event.preventDefault(); choose(user); } },
      make("bdi", {}, shown), make("span", {}, about))));
  list.hidden = !list.children.length;
  $("who").setAttribute("aria-expanded", String(!list.hidden));
  $("who").removeAttribute("aria-activedescendant");
}

function closeList() {
  $("shoppers").hidden = true;
  active = -1;
  $("who").setAttribute("aria-expanded", "false");
  $("who").removeAttribute("aria-activedescendant");
}

function move(by) {
  if ($("shoppers").hidden) openList();
  const lines = [...$("shoppers").children];
  if (!lines.length) return;
  active = active < 0 && by < 0 ? lines.length - 1 : (active + by + lines.length) % lines.length;
  lines.forEach((line, place) => line.setAttribute("aria-selected", String(place === active)));
  $("who").setAttribute("aria-activedescendant", lines[active].id);
  lines[active].scrollIntoView({ block: "nearest" });
}

function pressed(event) {
  const keys = { ArrowDown: () => move(1), ArrowUp: () => move(-1) };
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  else if (event.key === "Escape") { closeList(); $("who").value = state.fresh ? "" : state.user; }
  else if (event.key === "Enter") {
    event.preventDefault();
    const user = active >= 0 ? $("shoppers").children[active].dataset.user : $("who").value.trim();
    if (user) choose(user);
  }
}

/* ── Trouble, toast, theme ─────────────────────────────────────────────────────────────────────────────────────── */

function trouble(error, retry) {
  const box = $("trouble");
  box.hidden = !error;
  box.replaceChildren();
  if (!error) return;
  const unknown = error instanceof Refused && error.status === 404 && state.user && !state.fresh;
  box.append(make("p", {}, error instanceof Refused || error instanceof Unreachable ? error.message : `Something went wrong on this page: ${clean(error.message, 200)}`),
    make("p", { class: "buttons" },
      retry && make("button", { type: "button", class: "quiet", onclick: () => { trouble(null); retry(); } }, "Try again"),
      unknown && make("button", { type: "button", class: "quiet", onclick: () => choose(state.user, true) }, "Go on as someone new"),
      error.status === 401 && make("button", { type: "button", class: "quiet", onclick: async () => { if (await askForKey(sessionStorage.getItem("recgraph-key"))) { trouble(null); begin(); } } }, "Enter a key")));
}

let toastEnds = 0;
function toast(text) {
  const box = $("toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => { box.hidden = true; }, 4000);
}

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `${$("theme").textContent} colours`);
}

const IDEAS = {
  search: ["black boots under 250", "a warm coat, not wool", "summer dress for a wedding"],
  chat: ["a warm coat for winter", "under 250", "not black", "why the second?"],
};

function setMode(mode) {
  if (mode !== state.mode) {
    afresh();
    chips([], []);
    show([], null);
    $("notes").hidden = true;
    $("answer-title").textContent = $("made").textContent = $("words").value = state.query = "";
  }
  state.mode = mode;
  const talking = mode === "chat";
  $("words").placeholder = talking ? "Say what you are looking for" : "black boots under 60, or nothing at all";
  $("words-label").textContent = talking ? "Your message" : "What they search for; may stay empty";
  $("go").textContent = talking ? "Send" : "Recommend";
  $("ideas").replaceChildren("Try ", ...IDEAS[mode].map((idea) => make("button", { type: "button", class: "idea", onclick: () => submit(idea) }, idea)));
  $("talk").hidden = !talking || !$("talk").children.length;
  $("again-box").hidden = talking || !state.order.size;
}

function submit(text) {
  if (state.mode === "chat") {
    if (!text.trim()) return;
    $("words").value = "";
    chat(text.trim());
  } else {
    $("words").value = text;
    afresh(); // each search stands for itself; what adds up is a chat
    recommend(text.trim());
  }
}

async function begin() {
  try {
    const shop = await get("v1/shop");
    state.currency = clean(shop.currency, 8);
    state.simulated = clean(shop.simulated, 300);
    $("shop").textContent = clean(shop.name, 80);
    document.title = shop.name ? `${clean(shop.name, 80)} · recgraph` : "recgraph";
    if (shop.items) $("size").textContent = plural(shop.items, "product");
    $("simulated").textContent = state.simulated;
    $("simulated").hidden = !state.simulated;
    state.users = (await get("v1/users?limit=20").catch((error) => { if (error.status === 403) return {}; throw error; })).users || [];
    if (document.activeElement === $("who")) openList(); // who was faster than the list
    if (state.simulated && state.users.length && !state.user) choose(state.users[0].user_id); // an invented shopper minds no glance
  } catch (error) {
    trouble(error, begin);
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); submit($("words").value); });
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); $("key").close(event.submitter?.value || ""); });
$("new").addEventListener("click", () => choose(`guest-${name()}`, true));
for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", () => setMode(radio.value));
for (const [event, does] of [["input", openList], ["focus", openList], ["click", openList], ["keydown", pressed], ["blur", closeList]]) $("who").addEventListener(event, does);
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme !== "dark";
  localStorage.setItem("recgraph-theme", dark ? "dark" : "light");
  theme(dark);
});
const kept = localStorage.getItem("recgraph-theme"), system = matchMedia("(prefers-color-scheme: dark)");
theme(kept ? kept === "dark" : system.matches);
system.addEventListener("change", (event) => localStorage.getItem("recgraph-theme") || theme(event.matches));
drawNodes();
setMode("search");
begin();
