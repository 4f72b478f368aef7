// Workers and the queues that they read.
import { act, get, send } from "./api.js";
import { ask, badge, button, card, count, duration, h, none, often, reasons, redraw, table, tell } from "./dom.js";

const LIMITS = [["concurrency", "Most at once"], ["workerConcurrency", "Most per worker"], ["rate", "Most per second"]];
const path = (name) => `/queues/${encodeURIComponent(name)}`;
const limit = (found, name) => (found.limits[name] === null ? "none" : count(found.limits[name]));

// Backlog and limits are asked for: the stream of the hub does not have them.
const LOOK_MS = 2000;

function buttons(queue, refresh) {
  const steer = (verb) => async () => { if (await act(verb, () => send("POST", `${path(queue.name)}/${verb.toLowerCase()}`))) await refresh(); };
  const why = () => act("Why", async () => tell(`Queue ${queue.name}`, reasons((await get(`${path(queue.name)}/why`)).body)));
  const reset = async () => {
    if (await ask(`Let what the app declares for ${queue.name} count again?`, [], "Reset") && await act("Reset", () => send("DELETE", `${path(queue.name)}/limits`))) await refresh();
  };
  const change = async () => {
    const given = await ask(`Limits of ${queue.name} (empty: none)`, LIMITS.map(([name, label]) => ({ name, label, value: queue.limits[name] ?? "" })), "Set");
    if (!given) return;
    const wanted = Object.fromEntries(Object.entries(given).map(([name, text]) => [name, text.trim() === "" ? null : Number(text)]));
    if (await act("Limits", () => send("PUT", path(queue.name), wanted))) await refresh();
  };
  const pause = queue.paused ? "Resume" : "Pause";
  return h("div", { class: "buttons" }, button(pause, steer(pause)), button("Limits…", change), button("Reset", reset), button("Why", why));
}

export async function workers(view, { hub, signal }) {
  const [queues, list] = [h("div"), h("div")];
  view.append(h("h1", {}, "Workers"), card("Queues", queues), card("Workers", list));
  let found = null;
  let alive = [];
  const show = () => found && redraw(queues, found.length ? table([
    { name: "Queue", show: (queue) => queue.name },
    { name: "State", show: (queue) => badge(queue.paused ? "Suspended" : "Running") },
    { name: "Waits", number: true, show: (queue) => count(queue.backlog) },
    { name: "Runs", number: true, show: (queue) => count(queue.running) },
    { name: "Workers", number: true, show: (queue) => { const those = readers(queue); return h("span", { class: those.length ? null : "Failed" }, count(those.length)); } },
    { name: "Slots", number: true, show: (queue) => count(readers(queue).reduce((sum, worker) => sum + worker.concurrency, 0)) },
    ...LIMITS.map(([name, label]) => ({ name: label, number: true, show: (queue) => limit(queue, name) })),
    { name: "", show: (queue) => buttons(queue, refresh) }], found)
    : none("There are none."));
  const readers = (queue) => alive.filter((worker) => worker.queues.includes(queue.name));
  const refresh = async () => { found = (await get("/queues")).body; if (!signal.aborted) show(); };
  hub((state) => {
    alive = state.workers.filter((worker) => worker.alive);
    show();
    redraw(list, state.workers.length ? table([
      { name: "Worker", show: (worker) => worker.id },
      { name: "State", show: (worker) => badge(worker.alive ? "Running" : "Terminated") },
      { name: "Queues", show: (worker) => worker.queues.join(", ") },
      { name: "Runs", number: true, show: (worker) => `${count(worker.running)} of ${count(worker.concurrency)}` },
      { name: "Attempts so far", wide: true, show: (worker) => Object.entries(worker.counts).filter(([, value]) => value).map(([name, value]) => `${name.replace("_", " ")} ${count(value)}`).join(", ") },
      { name: "Last beat", number: true, show: (worker) => duration(worker.age_ms / 1000) }], state.workers)
      : none("None: activities wait."));
  });
  often(refresh, LOOK_MS, signal);
  await refresh();
}
