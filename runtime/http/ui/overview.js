// The hub at a glance.
import { get } from "./api.js";
import { badge, card, count, cut, figure, h, latency, link, many, none, often, redraw, table, when } from "./dom.js";

const STATUSES = ["Running", "Pending", "Suspended", "Completed", "Failed", "Terminated", "Canceled"];
const LOOK_MS = 3000;
const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);

// Things per second, from what two looks found.
function rate() {
  let before = null;
  return (now_ms, total) => {
    const found = before && now_ms > before.now_ms ? Math.max((1000 * (total - before.total)) / (now_ms - before.now_ms), 0) : 0;
    before = { now_ms, total };
    return found;
  };
}
const rounded = (number) => count(number < 10 ? Math.round(number * 10) / 10 : Math.round(number));

export function overview(view, { hub, signal }) {
  const [figures, states] = [h("div", { class: "cards figures" }), h("div", { class: "cards" })];
  const [warnings, failed] = [h("div"), h("div")];
  view.append(h("h1", {}, "Overview"), warnings, figures, states, card("Latest failures", failed));
  const [commitRate, attemptRate] = [rate(), rate()];
  hub((state) => {
    const commits = sum(state.partitions, (each) => each.commits);
    const alive = state.hosts.filter((host) => host.alive);
    const working = state.workers.filter((worker) => worker.alive);
    const attempts = sum(working, ({ counts }) => (counts.succeeded ?? 0) + (counts.failed ?? 0) + (counts.timed_out ?? 0) + (counts.cancelled ?? 0));
    const slowest = (of) => Math.max(0, ...alive.map(of));
    redraw(figures,
      figure("Commits / s", rounded(commitRate(state.now_ms, commits)), `${count(commits)} in all`),
      figure("Commit time", latency(slowest((host) => host.commit_p50_s)), `50 %; 99 % within ${latency(slowest((host) => host.commit_p99_s))}`),
      figure("Backlog", count(state.load.inbox + state.load.mailbox), `${count(state.load.inbox)} in inboxes, ${count(state.load.mailbox)} in mailboxes`),
      figure("Attempts / s", rounded(attemptRate(state.now_ms, attempts)), `${count(sum(working, (worker) => worker.running))} run now`),
      figure("Activities", count(state.load.activities), many(state.load.timers, "timer")),
      figure("In memory", count(sum(alive, (host) => host.activations)), "entities and instances"),
      figure("Hosts", count(alive.length), `${many(state.partitions.length, "partition")}, ${count(state.hosts.length - alive.length)} gone`),
      figure("Workers", count(working.length), many(sum(working, (worker) => worker.concurrency), "slot")));
    const wrong = [];
    if (state.unowned.length) wrong.push(h("a", { href: "#/hosts" }, `No live host runs partitions ${state.unowned.join(", ")}: what is sent to them waits.`));
    if (state.load.dead) wrong.push(h("a", { href: "#/dead-letters" }, `Set aside: ${many(state.load.dead, "message")}.`));
    if (!working.length) wrong.push(h("a", { href: "#/workers" }, "No worker runs: activities wait."));
    redraw(warnings, wrong.map((text) => h("p", { class: "card warning" }, text)));
  });
  const look = async () => {
    const counts = await Promise.all(STATUSES.map(async (status) => (await get(`/count?runtimeStatus=${status}`)).body.count));
    const found = (await get("/instances?runtimeStatus=Failed&top=8&showInput=false")).body;
    if (signal.aborted) return;
    redraw(states, STATUSES.map((status, at) =>
      h("a", { class: "card", href: `#/instances?runtimeStatus=${status}` }, badge(status), h("div", { class: "figure" }, count(counts[at])))));
    redraw(failed, found.length
      ? table([
        { name: "Instance", id: true, show: (row) => link(row.instanceId) },
        { name: "Orchestration", show: (row) => row.name },
        { name: "When", show: (row) => when(row.lastUpdatedTime) },
        { name: "Why", wide: true, show: (row) => cut(String(row.output ?? ""), 200) }], found,
      (row) => { location.hash = `#/instances/${encodeURIComponent(row.instanceId)}`; })
      : none("None."));
  };
  often(look, LOOK_MS, signal);
  return look();
}
