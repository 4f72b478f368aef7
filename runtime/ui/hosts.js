// Hosts, and which partition is where.
import { badge, card, count, duration, h, table } from "./dom.js";

export function hosts(view, { hub }) {
  const list = h("div");
  const map = h("div", { class: "parts" });
  view.append(h("h1", {}, "Hosts and partitions"), card("Hosts", list), card("Placement", map));
  hub((state) => {
    const color = (id) => `hsl(${(state.hosts.findIndex((host) => host.id === id) * 137 + 170) % 360} 55% 50%)`;
    const stateOf = (host) => (!host.alive ? "Terminated" : host.draining ? "Suspended" : "Running");
    list.replaceChildren(table([
      { name: "Host", show: (host) => [h("span", { style: { color: color(host.id) } }, "■ "), host.id, host.id === state.leader ? " (leads)" : ""] },
      { name: "State", show: (host) => badge(stateOf(host)) },
      { name: "Node", show: (host) => host.node.slice(0, 12) },
      { name: "Process", number: true, show: (host) => String(host.pid || "") },
      { name: "Partitions", number: true, show: (host) => count(host.partitions) },
      { name: "Activations", number: true, show: (host) => count(host.activations) },
      { name: "Commits", number: true, show: (host) => count(host.commits) },
      { name: "Last beat", number: true, show: (host) => duration(host.age_ms / 1000) }], state.hosts));
    map.replaceChildren(...state.partitions.map((part) => h("div", { class: "part", style: part.host ? { "--host": color(part.host) } : {},
      title: `${part.host || "nobody"}, epoch ${part.epoch}: ${Object.entries(part.load).map(([name, value]) => `${name} ${value}`).join(", ")}` },
      h("strong", {}, `p${part.number}`), ` ${count(part.load.inbox + part.load.mailbox)}`)));
  });
}
