// All instances: filter, page, act on several, or on all that match.
import { act, get, send } from "./api.js";
import { everyMatch } from "./batches.js";
import { ask, badge, button, card, count, cut, h, link, none, often, parsed, redraw, table, toast, when } from "./dom.js";

const STATUSES = ["", "Running", "Pending", "Suspended", "Completed", "Failed", "Terminated", "Canceled"];
const ACTIONS = ["suspend", "resume", "cancel", "terminate", "rewind", "restart", "purge"];
const LOOK_MS = 3000;
const PAGE = 50;

export function instances(view, { config, signal }, query = "") {
  const wanted = new URLSearchParams(query);
  const chosen = new Set();
  let pages = [""];
  let seen = [];

  const input = (name, label, more = {}) => h("input", { placeholder: label, "aria-label": label, title: label, type: "search",
    value: wanted.get(name) ?? "", onchange: (event) => filter(name, event.target.value), ...more });
  // What the browser shows as local time is sent as UTC.
  const time = (name, label) => h("label", { class: "inline" }, label, h("input", { type: "datetime-local", step: 1, "aria-label": label, value: local(wanted.get(name)),
    onchange: (event) => filter(name, event.target.value && new Date(event.target.value).toISOString()) }));
  const status = h("select", { "aria-label": "Status", onchange: (event) => filter("runtimeStatus", event.target.value) },
    STATUSES.map((each) => h("option", { value: each, selected: (wanted.get("runtimeStatus") ?? "") === each }, each || "any status")));
  const action = h("select", { "aria-label": "Action" }, ACTIONS.map((each) => h("option", {}, each)));
  const run = button("", () => runAll(action.value));
  const runMatching = button("Run on all that match…", () => everyMatch(action.value, wanted, signal).then((done) => done && look()));
  const clear = button("Clear", () => { location.hash = "#/instances"; });
  const list = h("div");
  const total = h("span", { class: "soft", role: "status" });
  const next = button("Next page", () => { pages.push(next.dataset.token); look(); });
  const previous = button("Previous page", () => { pages.pop(); look(); });
  view.append(h("h1", {}, "Instances"),
    h("datalist", { id: "orchestrations" }, config.orchestrations.map((value) => h("option", { value }))),
    h("div", { class: "row" }, input("instanceIdPrefix", "id begins with"), input("name", "orchestration", { list: "orchestrations" }), status,
      input("tag", "tag=value"), time("createdTimeFrom", "created from"), time("createdTimeTo", "to"), clear),
    h("div", { class: "row" }, action, run, runMatching, button("Start…", start, { class: "main" }), total),
    card("", list), h("div", { class: "row" }, previous, next));

  function filter(name, value) {
    if (value) wanted.set(name, value); else wanted.delete(name);
    history.replaceState(null, "", `#/instances${wanted.size ? `?${wanted}` : ""}`);
    pages = [""];
    chosen.clear();
    look().catch((error) => toast(error.message, true));
  }

  async function look() {
    const token = pages.at(-1);
    const path = new URLSearchParams(wanted);
    path.set("top", String(PAGE));
    path.set("showInput", "false");
    const { body, next: more } = await get(`/instances?${path}`, token ? { "x-ms-continuation-token": token } : {});
    if (signal.aborted || token !== pages.at(-1)) return;
    seen = body;
    show();
    next.dataset.token = more ?? "";
    next.disabled = !more;
    previous.disabled = pages.length < 2;
    clear.disabled = runMatching.disabled = !wanted.size;
    const { body: all } = await get(`/count?${wanted}`);
    total.textContent = `${count(all.count)} ${wanted.size ? "match" : "in all"}`;
  }

  function show() {
    redraw(list, seen.length ? rows(seen) : none("Nothing fits."));
    run.textContent = `Run on ${chosen.size} chosen`;
    run.disabled = !chosen.size;
  }

  const choose = (ids, on) => { ids.forEach((id) => (on ? chosen.add(id) : chosen.delete(id))); show(); };
  const box = (label, ids) => h("input", { type: "checkbox", "aria-label": label, checked: ids.length > 0 && ids.every((id) => chosen.has(id)),
    onchange: (event) => choose(ids, event.target.checked) });
  const rows = (found) => table([
    { name: "", head: () => box("choose all of this page", found.map((row) => row.instanceId)), show: (row) => box(`choose ${row.instanceId}`, [row.instanceId]) },
    { name: "Instance", id: true, show: (row) => link(row.instanceId) },
    { name: "Orchestration", show: (row) => row.name },
    { name: "Status", show: (row) => badge(row.runtimeStatus) },
    { name: "Custom status", show: (row) => (row.customStatus === null ? "" : cut(JSON.stringify(row.customStatus), 80)) },
    { name: "Created", show: (row) => when(row.createdTime) },
    { name: "Updated", show: (row) => when(row.lastUpdatedTime) }],
  found, (row) => { location.hash = `#/instances/${encodeURIComponent(row.instanceId)}`; });

  async function runAll(verb) {
    const danger = verb === "purge" || verb === "terminate";
    const given = await ask(`${verb} ${count(chosen.size)} instances?`, verb === "purge" || verb === "restart" ? [] : [{ name: "reason", label: "Reason" }], verb, { danger });
    if (!given) return;
    const outcomes = await Promise.allSettled([...chosen].map((id) => {
      const path = `/instances/${encodeURIComponent(id)}`;
      return verb === "purge" ? send("DELETE", path) : send("POST", `${path}/${verb}?reason=${encodeURIComponent(given.reason ?? "")}`);
    }));
    const refused = outcomes.filter((each) => each.status === "rejected");
    toast(`${verb}: ${outcomes.length - refused.length} done` + (refused.length ? `, ${refused.length} refused: ${refused[0].reason.message}` : ""), refused.length > 0);
    chosen.clear();
    await look();
  }

  async function start() {
    const given = await ask("Start an orchestration", [
      { name: "name", label: "Orchestration", value: config.orchestrations[0] ?? "", required: true, choices: config.orchestrations },
      { name: "id", label: "Id (empty: a new one)" },
      { name: "input", label: "Input (JSON)", json: true }], "Start");
    if (!given) return;
    const begun = await act(`Start ${given.name}`, () => send("POST",
      `/orchestrators/${encodeURIComponent(given.name)}${given.id ? `/${encodeURIComponent(given.id)}` : ""}`, parsed(given.input)));
    if (begun) location.hash = `#/instances/${encodeURIComponent(begun.id)}`;
  }

  show();
  often(look, LOOK_MS, signal);
  return look();
}

// A time in the form of an input field, in this browser's zone.
function local(text) {
  if (!text) return "";
  const at = new Date(text);
  return new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
