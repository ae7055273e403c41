// Text and elements: what comes from elsewhere is cleaned, and set as text, never as markup.

export const $ = (id) => document.getElementById(id);

// Control characters, and those that turn the direction of the text around them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+/gu;

export function clean(text, most = 300) {
  const told = String(text ?? "").slice(0, most * 4).replace(UNSEEN, " ").trim();
  return told.length > most ? `${told.slice(0, most - 1)}…` : told;
}

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null && child !== false));
  return made;
}

export function name() { // not randomUUID, which plain http has on loopback alone
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function money(price, currency) {
  if (typeof price !== "number") return "";
  const sign = clean(currency, 8);
  const amount = price.toLocaleString("en", { minimumFractionDigits: price % 1 ? 2 : 0, maximumFractionDigits: 2 });
  return /^[A-Za-z]{2,}$/.test(sign) ? `${sign} ${amount}` : `${sign}${amount}`;
}

export function took(ms) { return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`; }
export function plural(n, word) { return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`; }
export function say(text) { $("said").textContent = text; }

export function day(ts) {
  const moment = new Date(/Z|[+-]\d\d:\d\d$/.test(ts) ? ts : `${ts}Z`);
  if (Number.isNaN(moment.valueOf())) return "";
  if (moment.getUTCFullYear() < 1971) return `event ${Math.round(moment / 1000)}`; // data without a clock: a number instead
  return moment.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
}
