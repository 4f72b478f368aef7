// Hosts, and which partition is where.
import { badge, card, count, duration, h, latency, redraw, table } from "./dom.js";

export function hosts(view, { hub }) {
  const list = h("div");
  const map = h("div", { class: "parts" });
  view.append(h("h1", {}, "Hosts and partitions"), card("Hosts", list),
    card("Placement", h("p", { class: "soft" }, "Each partition, the colour of its host, and how much waits in it."), map));
  hub((state) => {
    const color = (id) => `hsl(${(state.hosts.findIndex((host) => host.id === id) * 137 + 170) % 360} 55% 50%)`;
    const stateOf = (host) => (!host.alive ? "Terminated" : host.draining ? "Suspended" : "Running");
    redraw(list, table([
      { name: "Host", show: (host) => [h("span", { class: "swatch", style: { "--host": color(host.id) } }), host.id, host.id === state.leader ? " (leads)" : ""] },
      { name: "State", show: (host) => badge(stateOf(host)) },
      { name: "Node", show: (host) => host.node.slice(0, 12) },
      { name: "Process", number: true, show: (host) => String(host.pid || "") },
      { name: "Release", show: (host) => host.release },
      { name: "Partitions", number: true, show: (host) => count(host.partitions) },
      { name: "Activations", number: true, show: (host) => count(host.activations) },
      { name: "Commits", number: true, show: (host) => count(host.commits) },
      { name: "50 % within", number: true, show: (host) => latency(host.commit_p50_s) },
      { name: "99 % within", number: true, show: (host) => latency(host.commit_p99_s) },
      { name: "Pools", show: (host) => host.pools.map((pool) => pool || "default").join(", ") },
      { name: "Last beat", number: true, show: (host) => duration(host.age_ms / 1000) }], state.hosts));
    const told = (part) => `${part.host || "nobody"}, epoch ${part.epoch}: ${Object.entries(part.load).map(([name, value]) => `${name} ${count(value)}`).join(", ")}`;
    redraw(map, state.partitions.map((part) => h("div", { class: part.host ? "part" : "part Failed", tabindex: 0, "aria-label": `p${part.number}: ${told(part)}`,
      style: part.host ? { "--host": color(part.host) } : {}, title: told(part) },
    h("strong", {}, `p${part.number}`), ` ${part.host ? count(part.load.inbox + part.load.mailbox) : "nobody"}`)));
  });
}
