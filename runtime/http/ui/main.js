// Routes, keys and the frame around the pages.
import { configure, follow } from "./api.js";
import { h, tell, toast } from "./dom.js";
import { entities, entity } from "./entities.js";
import { hosts } from "./hosts.js";
import { instance } from "./instance.js";
import { instances } from "./instances.js";
import { letters } from "./letters.js";
import { overview } from "./overview.js";
import { schedule, schedules } from "./schedules.js";
import { workers } from "./workers.js";

const PAGES = [
  { name: "Overview", hash: "#/", key: "o", match: /^#?\/?$/, show: overview },
  { name: "Instances", hash: "#/instances", key: "i", match: /^#\/instances(?:\?(.*))?$/, show: instances },
  { name: "", match: /^#\/instances\/([^?]+)$/, show: instance, under: "#/instances" },
  { name: "Entities", hash: "#/entities", key: "e", match: /^#\/entities(?:\/([^/?]+))?(?:\?(.*))?$/, show: entities },
  { name: "", match: /^#\/entities\/([^/]+)\/(.+)$/, show: entity, under: "#/entities" },
  { name: "Schedules", hash: "#/schedules", key: "s", match: /^#\/schedules$/, show: schedules },
  { name: "", match: /^#\/schedules\/(.+)$/, show: schedule, under: "#/schedules" },
  { name: "Workers", hash: "#/workers", key: "w", match: /^#\/workers$/, show: workers },
  { name: "Hosts", hash: "#/hosts", key: "h", match: /^#\/hosts$/, show: hosts },
  { name: "Dead letters", hash: "#/dead-letters", key: "d", match: /^#\/dead-letters$/, show: letters },
];

const view = document.getElementById("view");
const nav = document.getElementById("nav");
let leaving = new AbortController();
let hubState = null;
const hubWatchers = new Set();

// What every page gets: a signal that aborts when it is left, and the hub as it changes.
function context(config, signal) {
  return {
    config, signal,
    hub(told) {
      hubWatchers.add(told);
      signal.addEventListener("abort", () => hubWatchers.delete(told));
      if (hubState) told(hubState);
    },
  };
}

// A query stays as it is: its own decoding comes later. What cannot be decoded is taken as it stands.
function decoded(part) {
  if (part === undefined || part.includes("=")) return part;
  try { return decodeURIComponent(part); } catch { return part; }
}

function route(config) {
  leaving.abort();
  leaving = new AbortController();
  const hash = location.hash || "#/";
  const page = PAGES.find((each) => each.match.test(hash)) ?? PAGES[0];
  const found = (page.match.exec(hash) ?? []).slice(1).map(decoded);
  document.title = [page.name || found.filter(Boolean).join("/"), config.hub, "Lungfish"].filter(Boolean).join(" · ");
  for (const link of nav.children) {
    if (link.getAttribute("href") === (page.hash ?? page.under)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view.replaceChildren();
  Promise.resolve(page.show(view, context(config, leaving.signal), ...found)).catch((error) => {
    if (!leaving.signal.aborted) view.append(h("p", { class: "card Failed" }, error.message));
  });
}

function keys(event) {
  if (event.target.closest("input,textarea,select,dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = PAGES.find((each) => each.key === event.key);
  const rows = [...view.querySelectorAll("tbody tr[tabindex]")];
  const at = rows.indexOf(document.activeElement);
  if (page) location.hash = page.hash;
  else if (event.key === "/") view.querySelector("input")?.focus();
  else if (event.key === "j") rows[Math.min(at + 1, rows.length - 1)]?.focus();
  else if (event.key === "k") rows[Math.max(at - 1, 0)]?.focus();
  else if (event.key === "t") theme();
  else if (event.key === "?") help();
  else return;
  event.preventDefault();
}

function help() {
  const lines = [...PAGES.filter((page) => page.key).map((page) => [page.key, page.name]),
    ["/", "filter"], ["j k", "next, previous row"], ["Enter", "open"], ["t", "light or dark"]];
  tell("Keys", h("p", {}, lines.map(([key, what]) => [h("kbd", {}, key), ` ${what}`, h("br")])));
}

function theme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("lungfish-theme", document.documentElement.dataset.theme);
}

async function begin() {
  const kept = localStorage.getItem("lungfish-theme");
  if (kept) document.documentElement.dataset.theme = kept;
  document.getElementById("theme").addEventListener("click", theme);
  // The address tells the page: it must not become "#view".
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); view.focus(); });
  nav.append(...PAGES.filter((page) => page.name).map((page) => h("a", { href: page.hash, title: page.key }, page.name)));
  const config = await configure();
  document.getElementById("hub").textContent = config.hub ?? "Lungfish";
  const live = document.getElementById("live");
  const told = (name, value) => { if (name === "hub") { hubState = value; hubWatchers.forEach((watcher) => watcher(value)); } };
  const state = (on, why = "") => { live.className = on ? "on" : ""; live.textContent = on ? "● live" : "○ offline"; live.title = why; };
  follow("/watch", told, new AbortController().signal, state);
  addEventListener("hashchange", () => { route(config); view.focus(); });
  addEventListener("keydown", keys);
  route(config);
}

begin().catch((error) => toast(error.message, true));
