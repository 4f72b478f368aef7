// Schedules: when they are due, their runs, and what an operator does with them.
import { act, get, send } from "./api.js";
import { ask, badge, button, card, count, facts, h, link, none, often, parsed, redraw, table, when } from "./dom.js";

const LOOK_MS = 3000;
const OUTCOMES = { Running: "Running", Completed: "Completed", Sent: "Completed", Canceled: "Canceled", Terminated: "Terminated" };
const path = (id) => `/schedules/${encodeURIComponent(id)}`;
const state = (found) => badge(found.paused ? "Suspended" : found.remaining === 0 ? "Completed" : "Running");
const run = (each) => (each.outcome === "Sent" ? each.instanceId : link(each.instanceId));
const runs = (found) => [...found.running, ...found.recent];

export async function schedules(view, { config, signal }) {
  const list = h("div");
  view.append(h("h1", {}, "Schedules"), h("div", { class: "row" }, button("New schedule…", () => make(config), { class: "main" })), card("", list));
  const look = async () => {
    const { body } = await get("/schedules");
    if (!signal.aborted) redraw(list, body.length ? listed(body) : none("There are none."));
  };
  often(look, LOOK_MS, signal);
  await look();
}

const listed = (found) => table([
  { name: "Schedule", id: true, show: (each) => h("a", { href: `#/schedules/${encodeURIComponent(each.scheduleId)}` }, each.scheduleId) },
  { name: "State", show: state },
  { name: "When", show: (each) => each.spec },
  { name: "Does", show: (each) => each.target },
  { name: "Next", show: (each) => when(each.nextTimes[0]) },
  { name: "Latest", show: (each) => (each.recent[0] ? badge(OUTCOMES[each.recent[0].outcome] ?? "Failed") : "") },
  { name: "Runs", number: true, show: (each) => count(each.running.length) },
  { name: "Started", number: true, show: (each) => count(each.started) },
  { name: "Skipped", number: true, show: (each) => count(each.skipped) },
  { name: "Missed", number: true, show: (each) => count(each.missed) }], found,
(each) => { location.hash = `#/schedules/${encodeURIComponent(each.scheduleId)}`; });

async function make(config) {
  const given = await ask("Make a schedule", [
    { name: "id", label: "Id", required: true },
    { name: "orchestration", label: "Starts this orchestration", required: true, value: config.orchestrations[0] ?? "", choices: config.orchestrations },
    { name: "args", label: "Arguments (JSON array)", json: true },
    { name: "when", label: "Every so many seconds, or by a cron expression", required: true },
    { name: "tz", label: "Zone of a cron expression", value: Intl.DateTimeFormat().resolvedOptions().timeZone },
    { name: "note", label: "Note" }], "Make");
  if (!given) return;
  const every = Number(given.when);
  const spec = Number.isNaN(every) ? { cron: given.when, tz: given.tz } : { every };
  const body = { ...spec, orchestration: given.orchestration, args: parsed(given.args) ?? [], note: given.note };
  if (await act("Make", () => send("PUT", path(given.id), body))) location.hash = `#/schedules/${encodeURIComponent(given.id)}`;
}

export async function schedule(view, { signal }, id) {
  const [verbs, about, list] = [h("div", { class: "row" }), h("div"), h("div")];
  view.append(h("h1", {}, id), verbs, card("Schedule", about), card("Runs", list));
  const refresh = async () => {
    const { body: found } = await get(path(id));
    if (signal.aborted) return;
    redraw(verbs, buttons(found, refresh));
    redraw(about, facts(told(found)));
    redraw(list, runs(found).length ? table(RUNS, runs(found)) : none("None yet."));
  };
  often(refresh, LOOK_MS, signal);
  await refresh();
}

function buttons(found, refresh) {
  const at = path(found.scheduleId);
  const done = async (what, method, url, body) => { if (await act(what, () => send(method, url, body))) await refresh(); };
  const steer = (verb) => async () => {
    const given = await ask(`${verb} ${found.scheduleId}`, [{ name: "reason", label: "Note" }], verb);
    if (given) await done(verb, "POST", `${at}/${verb.toLowerCase()}?reason=${encodeURIComponent(given.reason)}`);
  };
  const fill = async () => {
    const given = await ask("Have the runs of past times", [
      { name: "start", label: "From (ISO time with offset)", required: true },
      { name: "end", label: "To", required: true }], "Backfill");
    if (given) await done("Backfill", "POST", `${at}/backfill`, given);
  };
  const remove = async () => {
    if (await ask(`Delete ${found.scheduleId}?`, [], "Delete", { danger: true }) && await act("Delete", () => send("DELETE", at))) location.hash = "#/schedules";
  };
  const pause = found.paused ? "Resume" : "Pause";
  return [button("Trigger now", () => done("Trigger", "POST", `${at}/trigger`), { class: "main" }),
    button(pause, steer(pause)), button("Backfill…", fill), button("Delete", remove, { class: "danger" })];
}

const told = (found) => [["State", state(found)], ["When", found.spec], ["Does", found.target], ["Overlap", found.overlap],
  ["Note", found.note], ["Made", when(found.createdTime)],
  ["Started", count(found.started)], ["Skipped", count(found.skipped)], ["Missed", count(found.missed)],
  ["Remaining", found.remaining === null ? "no bound" : count(found.remaining)],
  ["Next", found.nextTimes.length ? found.nextTimes.map((at) => h("div", {}, when(at))) : "never"]];

const RUNS = [
  { name: "Run", show: run },
  { name: "Outcome", show: (each) => [badge(OUTCOMES[each.outcome] ?? "Failed"), OUTCOMES[each.outcome] ? null : ` ${each.outcome}`] },
  { name: "For", show: (each) => when(each.nominalTime) },
  { name: "Began", show: (each) => when(each.begunTime) },
  { name: "Ended", show: (each) => when(each.endedTime) },
  { name: "Detail", wide: true, show: (each) => each.detail }];
