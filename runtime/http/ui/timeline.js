// What an instance did when: bars, and the events behind them.
import { button, cut, duration, h, link, none, table, when } from "./dom.js";

// More than a screen can show; who wants all of a long history asks for it.
const MOST = 300;
const OPEN = /(Scheduled|Created|Called)$/;
const FAILED = /Failed$/;

const KINDS = [[/^Task|^EntityOperation/, "task"], [/^Timer/, "timer"], [/^SubOrchestration/, "child"], [/^EventRaised$/, "moment"]];
const kind = (event) => KINDS.find(([pattern]) => pattern.test(event.EventType))?.[1];
const name = (event) => event.FunctionName ?? (event.Operation ? `${event.Entity}/${event.Key}.${event.Operation}` : event.Name ?? "timer");

// Names lead to whom they name.
function label(event) {
  if (event.InstanceId) return h("a", { href: `#/instances/${encodeURIComponent(event.InstanceId)}`, title: event.InstanceId }, name(event));
  if (event.Operation) return h("a", { href: `#/entities/${encodeURIComponent(event.Entity)}/${encodeURIComponent(event.Key)}` }, name(event));
  return name(event);
}

export function timeline(full, ended) {
  const begin = Date.parse(full.historyEvents[0]?.Timestamp ?? full.createdTime);
  const last = full.historyEvents.at(-1)?.Timestamp ?? full.lastUpdatedTime;
  const end = Math.max(ended ? Date.parse(last) : Date.now(), begin + 1);
  const begun = (event) => event.ScheduledTime ?? event.Timestamp;
  const all = full.historyEvents.filter(kind).sort((one, other) => Date.parse(begun(one)) - Date.parse(begun(other)));
  if (!all.length) return none("Nothing to show yet.");
  const at = (time) => (100 * (Math.min(Date.parse(time), end) - begin)) / (end - begin);
  const row = (event) => {
    const open = OPEN.test(event.EventType);
    const failed = FAILED.test(event.EventType);
    const from = at(begun(event));
    const width = kind(event) === "moment" ? null : `${Math.max((open ? 100 : at(event.Timestamp)) - from, 0.3)}%`;
    const took = kind(event) === "moment" ? "" : duration(((open ? end : Date.parse(event.Timestamp)) - Date.parse(begun(event))) / 1000);
    const title = [`${name(event)}: ${event.EventType}`, took, event.Reason].filter(Boolean).join(", ");
    return [h("div", { class: "name", title }, label(event)),
      h("div", { class: "track" }, h("div", { class: `bar ${kind(event)} ${open ? "open" : ""} ${failed ? "failed" : ""}`, title, style: width ? { left: `${from}%`, width } : { left: `${from}%` } })),
      h("div", { class: `took ${failed ? "Failed" : "soft"}` }, open ? `${took} …` : failed ? `${took} failed` : took || "event")];
  };
  return [h("div", { class: "gantt" }, all.slice(-MOST).map(row)),
    h("p", { class: "soft" }, when(new Date(begin).toISOString()), " to ", ended ? when(last) : "now", ` (${duration((end - begin) / 1000)})`,
      all.length > MOST ? `; the last ${MOST} of ${all.length}` : "")];
}

export function events(found, whole, more) {
  const shown = whole ? found : found.slice(-MOST);
  const rest = ({ EventType: _type, Timestamp: _at, Details: _details, ...others }) => (Object.keys(others).length ? JSON.stringify(others) : "");
  const what = (row) => h("span", { class: FAILED.test(row.EventType) ? "Failed" : null }, cut(rest(row), 400));
  return [shown.length < found.length ? button(`Show all ${found.length}`, more) : null, table([
    { name: "#", number: true, show: (row) => String(found.indexOf(row) + 1) },
    { name: "When", show: (row) => when(row.Timestamp) },
    { name: "Event", show: (row) => row.EventType },
    { name: "What", wide: true, show: (row) => [row.InstanceId ? [link(row.InstanceId), " "] : null, what(row),
      row.Details ? h("details", {}, h("summary", {}, "Error"), h("pre", {}, row.Details)) : null] }], shown)];
}
