// Schedules: when they are due, their runs, and what an operator does with them.
import { act, get, send } from "./api.js";
import { ask, badge, card, count, h, table, when } from "./dom.js";

const OUTCOMES = { Running: "Running", Completed: "Completed", Sent: "Completed", Canceled: "Canceled", Terminated: "Terminated" };
const path = (id) => `/schedules/${encodeURIComponent(id)}`;
const state = (found) => badge(found.paused ? "Suspended" : found.remaining === 0 ? "Completed" : "Running");
const run = (each) => (each.outcome === "Sent" ? each.instanceId
  : h("a", { href: `#/instances/${encodeURIComponent(each.instanceId)}` }, each.instanceId));

export async function schedules(view) {
  const list = h("div");
  view.append(h("h1", {}, "Schedules"), card("", list));
  const { body } = await get("/schedules");
  list.replaceChildren(body.length ? table([
    { name: "Schedule", show: (found) => found.scheduleId },
    { name: "State", show: state },
    { name: "When", show: (found) => found.spec },
    { name: "Does", show: (found) => found.target },
    { name: "Next", show: (found) => when(found.nextTimes[0]) },
    { name: "Latest", show: (found) => (found.recent[0] ? badge(OUTCOMES[found.recent[0].outcome] ?? "Failed") : "") },
    { name: "Runs", number: true, show: (found) => count(found.running.length) },
    { name: "Started", number: true, show: (found) => count(found.started) },
    { name: "Skipped", number: true, show: (found) => count(found.skipped) },
    { name: "Missed", number: true, show: (found) => count(found.missed) }], body,
  (found) => { location.hash = `#/schedules/${encodeURIComponent(found.scheduleId)}`; })
    : h("p", { class: "soft" }, "There are none."));
}

export async function schedule(view, context, id) {
  const shown = h("div");
  view.append(h("h1", {}, id), shown);
  const show = (found) => shown.replaceChildren(buttons(found, refresh), facts(found), runs(found));
  const refresh = async () => show((await get(path(id))).body);
  await refresh();
}

function buttons(found, refresh) {
  const at = path(found.scheduleId);
  const act_ = (what, method, url, body) => act(what, () => send(method, url, body)).then((done) => done && refresh());
  const steer = (verb) => async () => {
    const given = await ask(`${verb} ${found.scheduleId}`, [{ name: "reason", label: "Note" }], verb);
    if (given) await act_(verb, "POST", `${at}/${verb.toLowerCase()}?reason=${encodeURIComponent(given.reason)}`);
  };
  const fill = async () => {
    const given = await ask("Have the runs of past times", [
      { name: "start", label: "From (ISO time with offset)", required: true },
      { name: "end", label: "To", required: true }], "Backfill");
    if (given) await act_("Backfill", "POST", `${at}/backfill`, given);
  };
  const remove = async () => {
    if (await ask(`Delete ${found.scheduleId}?`, [], "Delete")) {
      if (await act("Delete", () => send("DELETE", at))) location.hash = "#/schedules";
    }
  };
  return h("div", { class: "row" },
    h("button", { type: "button", class: "main", onclick: () => act_("Trigger", "POST", `${at}/trigger`) }, "Trigger now"),
    h("button", { type: "button", onclick: steer(found.paused ? "Resume" : "Pause") }, found.paused ? "Resume" : "Pause"),
    h("button", { type: "button", onclick: fill }, "Backfill"),
    h("button", { type: "button", onclick: remove }, "Delete"),
    h("button", { type: "button", onclick: refresh }, "Refresh"));
}

function facts(found) {
  const rows = [["State", state(found)], ["When", found.spec], ["Does", found.target], ["Overlap", found.overlap],
    ["Note", found.note], ["Made", when(found.createdTime)],
    ["Started", count(found.started)], ["Skipped", count(found.skipped)], ["Missed", count(found.missed)],
    ["Remaining", found.remaining === null ? "no bound" : count(found.remaining)],
    ["Next", found.nextTimes.length ? found.nextTimes.map((at) => h("div", {}, when(at))) : "never"]];
  return card("Schedule", table([{ name: "", show: ([name]) => name }, { name: "", show: ([, value]) => value }], rows));
}

function runs(found) {
  const all = [...found.running, ...found.recent];
  return card("Runs", all.length ? table([
    { name: "Run", show: run },
    { name: "Outcome", show: (each) => [badge(OUTCOMES[each.outcome] ?? "Failed"), OUTCOMES[each.outcome] ? null : ` ${each.outcome}`] },
    { name: "For", show: (each) => when(each.nominalTime) },
    { name: "Began", show: (each) => when(each.begunTime) },
    { name: "Ended", show: (each) => when(each.endedTime) },
    { name: "Detail", show: (each) => each.detail }], all)
    : h("p", { class: "soft" }, "None yet."));
}
