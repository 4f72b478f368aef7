// One instance: how it stands, what it did when, and what can be done with it.
import { act, follow, get, send } from "./api.js";
import { ask, badge, card, chain, duration, h, json, table, when } from "./dom.js";

const ENDED = new Set(["Completed", "Failed", "Terminated", "Canceled"]);

export async function instance(view, { signal }, id) {
  const path = `/instances/${encodeURIComponent(id)}`;
  const head = h("div");
  const body = h("div");
  view.append(h("h1", {}, id), head, body);
  let shown = null;

  async function look(status) {
    const key = JSON.stringify(status);
    if (key === shown) return;
    shown = key;
    const { body: full } = await get(`${path}?showHistory=true&showHistoryOutput=true`);
    if (signal.aborted) return;
    const why = ENDED.has(full.runtimeStatus) ? null : (await get(`${path}/why`).catch(() => ({ body: null }))).body;
    head.replaceChildren(
      h("div", { class: "row" }, badge(full.runtimeStatus), h("strong", {}, full.name),
        h("span", { class: "soft" }, `created ${when(full.createdTime)}, updated ${when(full.lastUpdatedTime)}`)),
      why ? h("div", { class: "card", id: "why" }, h("p", {}, why.text), chain(why.chain)) : "",
      actions(full));
    body.replaceChildren(
      h("div", { class: "two" }, card("Input", json(full.input)), card("Output", json(full.output)),
        full.customStatus === null ? "" : card("Custom status", json(full.customStatus))),
      h("p"), card("Timeline", timeline(full)), card(`History (${full.historyEvents.length})`, events(full.historyEvents)));
  }

  const again = async () => { shown = null; await look((await get(path)).body); };
  const verb = (name, danger, given = { reason: true }) => h("button", { class: danger ? "danger" : null, onclick: async () => {
    const answer = await ask(`${name} ${id}?`, given.reason ? [{ name: "reason", label: "Reason" }] : [], name);
    if (answer && (await act(name, () => send(given.method ?? "POST", given.path ?? `${path}/${name}?reason=${encodeURIComponent(answer.reason ?? "")}`)))) {
      if (given.leave) location.hash = "#/instances"; else await again();
    }
  } }, name);

  function actions(full) {
    const ended = ENDED.has(full.runtimeStatus);
    const suspended = full.runtimeStatus === "Suspended";
    return h("div", { class: "row" }, ended
      ? [verb("restart", false, { path: `${path}/restart` }), full.runtimeStatus === "Failed" ? verb("rewind") : null,
        verb("purge", true, { method: "DELETE", path, leave: true })]
      : [h("button", { onclick: raise }, "raise event…"), suspended ? verb("resume") : verb("suspend"), verb("cancel"), verb("terminate", true)]);
  }

  async function raise() {
    const given = await ask("Raise an event", [{ name: "name", label: "Name", required: true }, { name: "payload", label: "Payload (JSON)", long: true }], "Raise");
    if (given) await act("raise event", () => send("POST", `${path}/raiseEvent/${encodeURIComponent(given.name)}`, given.payload.trim() ? JSON.parse(given.payload) : null));
  }

  await look((await get(path)).body);
  follow(`${path}/watch`, (name, status) => name === "status" && look(status), signal);
}

function timeline(full) {
  const begin = Date.parse(full.historyEvents[0]?.Timestamp ?? full.createdTime);
  const last = full.historyEvents.at(-1)?.Timestamp ?? full.lastUpdatedTime;
  const end = Math.max(ENDED.has(full.runtimeStatus) ? Date.parse(last) : Date.now(), begin + 1);
  const at = (time) => (100 * (Math.min(Date.parse(time), end) - begin)) / (end - begin);
  const rows = full.historyEvents.filter((event) => kind(event));
  if (!rows.length) return h("p", { class: "soft" }, "Nothing to show yet.");
  return [h("div", { class: "gantt" }, rows.map((event) => {
    const open = /(Scheduled|Created|Called)$/.test(event.EventType);
    const from = at(event.ScheduledTime ?? event.Timestamp);
    const to = open ? 100 : at(event.Timestamp);
    const text = label(event);
    const took = duration((Date.parse(open ? new Date(end).toISOString() : event.Timestamp) - Date.parse(event.ScheduledTime ?? event.Timestamp)) / 1000);
    const title = `${text}: ${event.EventType}${kind(event) === "moment" ? "" : `, ${took}`}${event.Reason ? `, ${event.Reason}` : ""}`;
    const style = kind(event) === "moment" ? { left: `${from}%` } : { left: `${from}%`, width: `${Math.max(to - from, 0.3)}%` };
    return [h("div", { class: "name", title }, text),
      h("div", { class: "track" }, h("div", { class: `bar ${kind(event)} ${open ? "open" : ""} ${/Failed$/.test(event.EventType) ? "failed" : ""}`, style, title }))];
  })), h("p", { class: "soft" }, `${when(new Date(begin).toISOString())} to ${ENDED.has(full.runtimeStatus) ? when(last) : "now"} (${duration((end - begin) / 1000)})`)];
}

function kind(event) {
  if (/^Task/.test(event.EventType)) return "task";
  if (/^Timer/.test(event.EventType)) return "timer";
  if (/^SubOrchestration/.test(event.EventType)) return "child";
  if (/^EntityOperation/.test(event.EventType)) return "task";
  return event.EventType === "EventRaised" ? "moment" : "";
}

const label = (event) => event.FunctionName ?? (event.Operation ? `${event.Entity}/${event.Key}.${event.Operation}` : event.Name ?? "timer");

function events(found) {
  const rest = ({ EventType: _type, Timestamp: _at, ...others }) => Object.keys(others).length ? JSON.stringify(others) : "";
  return table([
    { name: "#", number: true, show: (row) => String(found.indexOf(row)) },
    { name: "When", show: (row) => when(row.Timestamp) },
    { name: "Event", show: (row) => row.EventType },
    { name: "What", show: (row) => h("span", { class: /Failed/.test(row.EventType) ? "Failed" : null }, rest(row).slice(0, 400)) }], found);
}
