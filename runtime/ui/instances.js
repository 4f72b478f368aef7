// All instances: filter, page, act on several.
import { act, get, send } from "./api.js";
import { ask, badge, card, h, table, toast, when } from "./dom.js";

const STATUSES = ["", "Running", "Pending", "Suspended", "Completed", "Failed", "Terminated", "Canceled"];
const ACTIONS = ["suspend", "resume", "cancel", "terminate", "rewind", "purge"];
const LOOK_MS = 3000;

export function instances(view, { config, signal }, query = "") {
  const wanted = new URLSearchParams(query);
  const chosen = new Set();
  let pages = [""];

  const input = (name, label) => h("input", { placeholder: label, "aria-label": label, value: wanted.get(name) ?? "",
    onchange: (event) => filter(name, event.target.value) });
  const status = h("select", { "aria-label": "Status", onchange: (event) => filter("runtimeStatus", event.target.value) },
    STATUSES.map((each) => h("option", { value: each, selected: (wanted.get("runtimeStatus") ?? "") === each }, each || "any status")));
  const action = h("select", { "aria-label": "Action" }, ACTIONS.map((each) => h("option", {}, each)));
  const run = h("button", { onclick: () => runAll(action.value) }, "Run on 0 chosen");
  const list = h("div");
  const next = h("button", { onclick: () => { pages.push(next.dataset.token); look(); } }, "Next page");
  const previous = h("button", { onclick: () => { pages.pop(); look(); } }, "Previous page");
  view.append(h("h1", {}, "Instances"),
    h("div", { class: "row" }, input("instanceIdPrefix", "id begins with"), input("name", "orchestration"), status, input("tag", "tag=value"),
      h("button", { class: "main", onclick: start }, "Start…")),
    h("div", { class: "row" }, action, run),
    card("", list), h("div", { class: "row" }, previous, next));

  function filter(name, value) {
    if (value) wanted.set(name, value); else wanted.delete(name);
    history.replaceState(null, "", `#/instances?${wanted}`);
    pages = [""];
    look();
  }

  async function look() {
    const token = pages.at(-1);
    const path = new URLSearchParams(wanted);
    path.set("top", "50");
    path.set("showInput", "false");
    const { body, next: more } = await get(`/instances?${path}`, token ? { "x-ms-continuation-token": token } : {});
    if (signal.aborted) return;
    const focused = [...list.querySelectorAll("tbody tr")].indexOf(document.activeElement);
    list.replaceChildren(body.length ? rows(body) : h("p", { class: "soft" }, "Nothing fits."));
    list.querySelectorAll("tbody tr")[focused]?.focus();
    next.dataset.token = more ?? "";
    next.disabled = !more;
    previous.disabled = pages.length < 2;
    run.textContent = `Run on ${chosen.size} chosen`;
    run.disabled = !chosen.size;
  }

  const rows = (found) => table([
    { name: "", show: (row) => h("input", { type: "checkbox", "aria-label": `choose ${row.instanceId}`, checked: chosen.has(row.instanceId),
      onchange: (event) => { if (event.target.checked) chosen.add(row.instanceId); else chosen.delete(row.instanceId); look(); } }) },
    { name: "Instance", show: (row) => h("a", { href: `#/instances/${encodeURIComponent(row.instanceId)}` }, row.instanceId) },
    { name: "Orchestration", show: (row) => row.name },
    { name: "Status", show: (row) => badge(row.runtimeStatus) },
    { name: "Custom status", show: (row) => (row.customStatus === null ? "" : JSON.stringify(row.customStatus).slice(0, 80)) },
    { name: "Created", show: (row) => when(row.createdTime) },
    { name: "Updated", show: (row) => when(row.lastUpdatedTime) }],
    found, (row) => { location.hash = `#/instances/${encodeURIComponent(row.instanceId)}`; });

  async function runAll(verb) {
    const given = await ask(`${verb} ${chosen.size} instances?`, verb === "purge" ? [] : [{ name: "reason", label: "Reason" }], verb);
    if (!given) return;
    const outcomes = await Promise.allSettled([...chosen].map((id) => {
      const path = `/instances/${encodeURIComponent(id)}`;
      return verb === "purge" ? send("DELETE", path) : send("POST", `${path}/${verb}?reason=${encodeURIComponent(given.reason)}`);
    }));
    const refused = outcomes.filter((each) => each.status === "rejected");
    toast(`${verb}: ${outcomes.length - refused.length} done` + (refused.length ? `, ${refused.length} refused: ${refused[0].reason.message}` : ""), refused.length > 0);
    chosen.clear();
    look();
  }

  async function start() {
    const names = config.orchestrations.join(", ");
    const given = await ask("Start an orchestration", [
      { name: "name", label: `Orchestration${names ? ` (${names})` : ""}`, value: config.orchestrations[0] ?? "", required: true },
      { name: "id", label: "Id (empty: a new one)" },
      { name: "input", label: "Input (JSON)", long: true }], "Start");
    if (!given) return;
    await act(`start ${given.name}`, () => send("POST", `/orchestrators/${encodeURIComponent(given.name)}${given.id ? `/${encodeURIComponent(given.id)}` : ""}`,
      given.input.trim() ? JSON.parse(given.input) : undefined));
    look();
  }

  const timer = setInterval(() => look().catch(() => {}), LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return look();
}
