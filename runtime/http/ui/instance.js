// One instance: how it stands, and what can be done with it.
import { act, follow, get, send } from "./api.js";
import { ask, badge, button, card, h, json, none, often, parsed, reasons, redraw, tell, when } from "./dom.js";
import { events, timeline } from "./timeline.js";

const ENDED = new Set(["Completed", "Failed", "Terminated", "Canceled"]);
const LOOK_MS = 2000;

export async function instance(view, { signal }, id) {
  const path = `/instances/${encodeURIComponent(id)}`;
  const [head, why, verbs, body, past] = [h("div", { class: "row" }), h("div"), h("div", { class: "row" }), h("div"), h("div")];
  view.append(h("h1", {}, id), head, why, verbs, body, past);
  let ended = false;
  let raw = false;
  let whole = false;
  let full = null;

  async function look() {
    const { body: found } = await get(`${path}?showHistory=true&showHistoryOutput=true`);
    if (signal.aborted) return;
    full = found;
    ended = ENDED.has(full.runtimeStatus);
    redraw(head, badge(full.runtimeStatus), h("strong", {}, full.name),
      h("span", { class: "soft" }, "created ", when(full.createdTime), ", updated ", when(full.lastUpdatedTime)));
    redraw(verbs, actions());
    redraw(body, h("div", { class: "two" }, card("Input", json(full.input)), card(full.runtimeStatus === "Failed" ? "Failure" : "Output", ended ? output(full) : none("Not yet.")),
      full.customStatus === null ? null : card("Custom status", json(full.customStatus))));
    history();
    await explain();
  }

  function history() {
    const all = full.historyEvents;
    redraw(past, card("Timeline", timeline(full, ended)), card(`History (${all.length})`,
      h("div", { class: "row" }, button(raw ? "As a table" : "As JSON", () => { raw = !raw; history(); })),
      raw ? json(all) : events(all, whole, () => { whole = true; history(); })));
  }

  async function explain() {
    if (ended) { redraw(why); return; }
    const { body: known } = await get(`${path}/why`);
    if (!signal.aborted && !ended) redraw(why, h("div", { class: "card", id: "why" }, reasons(known)));
  }

  const verb = (name, { danger = false, method = "POST", to = `${path}/${name.toLowerCase()}`, reason = true, then = look } = {}) =>
    button(name, async () => {
      const given = await ask(`${name} ${id}?`, reason ? [{ name: "reason", label: "Reason" }] : [], name, { danger });
      if (!given) return;
      const done = await act(name, () => send(method, reason ? `${to}?reason=${encodeURIComponent(given.reason)}` : to));
      if (done) await then(done);
    }, { class: danger ? "danger" : null });
  const goTo = (made) => { location.hash = `#/instances/${encodeURIComponent(made.id)}`; };

  function actions() {
    const fork = button("Fork…", forkIt);
    if (ended) {
      return [verb("Restart", { reason: false, then: goTo }), full.runtimeStatus === "Failed" ? verb("Rewind") : null, fork,
        verb("Purge", { danger: true, method: "DELETE", to: path, reason: false, then: () => { location.hash = "#/instances"; } })];
    }
    return [button("Raise event…", raise, { class: "main" }), verb(full.runtimeStatus === "Suspended" ? "Resume" : "Suspend"),
      button("Query…", () => talk("Query")), button("Update…", () => talk("Update")), fork, verb("Cancel"), verb("Terminate", { danger: true })];
  }

  async function raise() {
    const given = await ask("Raise an event", [{ name: "name", label: "Name", required: true }, { name: "payload", label: "Payload (JSON)", json: true }], "Raise");
    if (given) await act("Raise event", () => send("POST", `${path}/raiseEvent/${encodeURIComponent(given.name)}`, parsed(given.payload) ?? null));
  }

  // A query asks the orchestration's code, an update changes something: docs/orchestrations.md.
  async function talk(kind) {
    const given = await ask(`${kind} ${id}`, [{ name: "name", label: "Name", required: true }, { name: "input", label: "Input (JSON)", json: true }], kind);
    if (given) await act(kind, async () => tell(given.name, json(await send("POST", `${path}/${kind.toLowerCase()}/${encodeURIComponent(given.name)}`, parsed(given.input)))));
  }

  async function forkIt() {
    const given = await ask(`Begin a new instance with the history of ${id}`, [
      { name: "at", label: "How many of its stored events", required: true }, { name: "id", label: "Id (empty: a new one)" }], "Fork");
    if (!given) return;
    const query = new URLSearchParams(given.id ? { at: given.at, newInstanceId: given.id } : { at: given.at });
    const made = await act("Fork", () => send("POST", `${path}/fork?${query}`));
    if (made) goTo(made);
  }

  // The stream ends with the instance, which may be rewound: then it is followed once more.
  let followed = false;
  async function followIt() {
    followed = true;
    await follow(`${path}/watch`, (name) => name === "status" && look().catch(() => {}), signal);
    followed = false;
  }

  async function lookAgain() {
    // Attempts of an activity, and who holds it up, are not in its status.
    if (!ended) {
      if (!followed) followIt();
      await explain();
      return;
    }
    const { body: now } = await get(`${path}?showInput=false`);
    if (now.runtimeStatus !== full.runtimeStatus || now.lastUpdatedTime !== full.lastUpdatedTime) await look();
  }

  await look();
  followIt();
  often(lookAgain, LOOK_MS, signal);
}

// What went wrong is a text with lines of its own; anything else is a value.
const output = (full) => (full.runtimeStatus === "Failed" && typeof full.output === "string" ? h("pre", { tabindex: 0, class: "Failed" }, full.output) : json(full.output));
