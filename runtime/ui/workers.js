// Workers and the queues that they read.
import { act, get, send } from "./api.js";
import { ask, badge, card, count, duration, h, table } from "./dom.js";

const LIMITS = [["concurrency", "At once, over all workers"], ["workerConcurrency", "At once, per worker"], ["rate", "Begun per second"]];
const path = (name) => `/queues/${encodeURIComponent(name)}`;
const limit = (found, name) => (found.limits[name] === null ? "none" : count(found.limits[name]));

// Backlog and limits are asked for: the stream of the hub does not have them.
const POLL_MS = 2000;

function limits(list) {
  const refresh = async () => show((await get("/queues")).body);
  const steer = (found, verb) => async () => (await act(verb, () => send("POST", `${path(found.name)}/${verb.toLowerCase()}`))) && refresh();
  const change = (found) => async () => {
    const given = await ask(`Limits of ${found.name} (empty: none)`, LIMITS.map(([name, label]) => ({ name, label, value: found.limits[name] ?? "" })), "Set");
    if (!given) return;
    const wanted = Object.fromEntries(Object.entries(given).map(([name, text]) => [name, text.trim() === "" ? null : Number(text)]));
    if (await act("Limits", () => send("PUT", path(found.name), wanted))) await refresh();
  };
  const show = (found) => list.replaceChildren(found.length ? table([
    { name: "Queue", show: (queue) => queue.name },
    { name: "State", show: (queue) => badge(queue.paused ? "Suspended" : "Running") },
    { name: "Waits", number: true, show: (queue) => count(queue.backlog) },
    { name: "Runs", number: true, show: (queue) => count(queue.running) },
    ...LIMITS.map(([name, label]) => ({ name: label, number: true, show: (queue) => limit(queue, name) })),
    { name: "", show: (queue) => [
      h("button", { type: "button", onclick: steer(queue, queue.paused ? "Resume" : "Pause") }, queue.paused ? "Resume" : "Pause"), " ",
      h("button", { type: "button", onclick: change(queue) }, "Limits…")] }], found)
    : h("p", { class: "soft" }, "There are none."));
  return refresh;
}

export async function workers(view, { hub, signal }) {
  const queues = h("div");
  const limited = h("div");
  const list = h("div");
  view.append(h("h1", {}, "Workers"), card("Queues", limited), card("Who reads them", queues), card("Workers", list));
  hub((state) => {
    const names = [...new Set(state.workers.flatMap((worker) => worker.queues))].sort();
    const readers = (queue) => state.workers.filter((worker) => worker.alive && worker.queues.includes(queue));
    queues.replaceChildren(names.length ? table([
      { name: "Queue", show: (queue) => queue },
      { name: "Live workers", number: true, show: (queue) => h("span", { class: readers(queue).length ? null : "Failed" }, count(readers(queue).length)) },
      { name: "Slots", number: true, show: (queue) => count(readers(queue).reduce((sum, worker) => sum + worker.concurrency, 0)) }], names)
      : h("p", { class: "soft" }, "No worker has been here."));
    list.replaceChildren(state.workers.length ? table([
      { name: "Worker", show: (worker) => worker.id },
      { name: "State", show: (worker) => badge(worker.alive ? "Running" : "Terminated") },
      { name: "Queues", show: (worker) => worker.queues.join(", ") },
      { name: "Runs", number: true, show: (worker) => `${count(worker.running)} of ${count(worker.concurrency)}` },
      { name: "Counts", show: (worker) => Object.entries(worker.counts).map(([name, value]) => `${name} ${count(value)}`).join("  ") },
      { name: "Last beat", number: true, show: (worker) => duration(worker.age_ms / 1000) }], state.workers)
      : h("p", { class: "soft" }, "None: activities wait."));
  });
  const refresh = limits(limited);
  await refresh();
  const timer = setInterval(() => list.isConnected && !limited.contains(document.activeElement) && refresh().catch(() => {}), POLL_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}
