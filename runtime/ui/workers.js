// Workers and the queues that they read.
import { badge, card, count, duration, h, table } from "./dom.js";

export function workers(view, { hub }) {
  const queues = h("div");
  const list = h("div");
  view.append(h("h1", {}, "Workers"), card("Queues", queues), card("Workers", list));
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
}
