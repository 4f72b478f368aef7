// The hub at a glance.
import { get } from "./api.js";
import { badge, card, count, figure, h, table, when } from "./dom.js";

const STATUSES = ["Running", "Pending", "Suspended", "Completed", "Failed", "Terminated", "Canceled"];
const LOOK_MS = 3000;

export function overview(view, { hub, signal }) {
  const figures = h("div", { class: "cards" });
  const states = h("div", { class: "cards" });
  const warnings = h("div");
  const failed = h("div");
  view.append(h("h1", {}, "Overview"), warnings, figures, states, card("Latest failures", failed));
  let before = null;
  hub((state) => {
    const commits = state.partitions.reduce((sum, each) => sum + each.commits, 0);
    const rate = before && state.now_ms > before.at ? (commits - before.commits) / ((state.now_ms - before.at) / 1000) : 0;
    before = { at: state.now_ms, commits };
    const alive = state.hosts.filter((host) => host.alive);
    const working = state.workers.filter((worker) => worker.alive);
    figures.replaceChildren(
      figure("Commits / s", count(Math.round(rate)), `${count(commits)} in all`),
      figure("In memory", count(alive.reduce((sum, host) => sum + host.activations, 0)), "activations"),
      figure("Backlog", count(state.load.inbox), "batches in inboxes"),
      figure("Activities", count(state.load.activities), `${count(state.load.timers)} timers`),
      figure("Hosts", count(alive.length), `${count(state.hosts.length - alive.length)} gone`),
      figure("Workers", count(working.length), `${count(working.reduce((sum, worker) => sum + worker.running, 0))} activities run`));
    const wrong = [];
    if (state.unowned.length) wrong.push(`No live host runs partitions ${state.unowned.join(", ")}: what is sent to them waits.`);
    if (state.load.dead) wrong.push(`${count(state.load.dead)} messages could not be read and were set aside.`);
    if (!working.length) wrong.push("No worker runs: activities wait.");
    warnings.replaceChildren(...wrong.map((text) => h("p", { class: "card Failed" }, text)));
  });
  const look = async () => {
    const counts = await Promise.all(STATUSES.map(async (status) => (await get(`/count?runtimeStatus=${status}`)).body.count));
    states.replaceChildren(...STATUSES.map((status, at) =>
      h("a", { class: "card", href: `#/instances?runtimeStatus=${status}`, style: { "text-decoration": "none" } },
        badge(status), h("div", { class: "figure" }, count(counts[at])))));
    const found = (await get("/instances?runtimeStatus=Failed&top=8&showInput=false")).body;
    failed.replaceChildren(found.length
      ? table([
        { name: "Instance", show: (row) => h("a", { href: `#/instances/${encodeURIComponent(row.instanceId)}` }, row.instanceId) },
        { name: "Orchestration", show: (row) => row.name },
        { name: "When", show: (row) => when(row.lastUpdatedTime) },
        { name: "Why", show: (row) => String(row.output ?? "").slice(0, 200) }], found,
        (row) => { location.hash = `#/instances/${encodeURIComponent(row.instanceId)}`; })
      : h("p", { class: "soft" }, "None."));
  };
  const timer = setInterval(() => look().catch(() => {}), LOOK_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return look();
}
