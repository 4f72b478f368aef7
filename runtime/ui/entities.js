// Entities: types, keys, a state as it changes, and an editor whose changes leave a record.
import { act, follow, get, send } from "./api.js";
import { ask, card, chain, h, json, table } from "./dom.js";

export function entities(view, { config, signal }, name = config.entities[0], query = "") {
  const wanted = new URLSearchParams(query);
  const list = h("div");
  let pages = [""];
  const next = h("button", { onclick: () => { pages.push(next.dataset.token); look(); } }, "Next page");
  const previous = h("button", { onclick: () => { pages.pop(); look(); } }, "Previous page");
  const type = h("input", { "aria-label": "Type", placeholder: "type", value: name ?? "", list: "types", onchange: (event) => { location.hash = `#/entities/${encodeURIComponent(event.target.value)}`; } });
  const prefix = h("input", { "aria-label": "Key begins with", placeholder: "key begins with", value: wanted.get("prefix") ?? "", onchange: () => { pages = [""]; look(); } });
  const open = h("button", { onclick: async () => {
    const given = await ask("Open an entity", [{ name: "key", label: "Key", required: true }], "Open");
    if (given) location.hash = `#/entities/${encodeURIComponent(type.value)}/${encodeURIComponent(given.key)}`;
  } }, "Open by key…");
  view.append(h("h1", {}, "Entities"), h("datalist", { id: "types" }, config.entities.map((each) => h("option", { value: each }))),
    h("div", { class: "row" }, type, prefix, open), card("", list), h("div", { class: "row" }, previous, next));

  async function look() {
    if (!type.value) { list.replaceChildren(h("p", { class: "soft" }, "Which type?")); return; }
    const token = pages.at(-1);
    const path = `/entities/${encodeURIComponent(type.value)}?fetchState=true&top=50&prefix=${encodeURIComponent(prefix.value)}`;
    const { body, next: more } = await get(path, token ? { "x-ms-continuation-token": token } : {});
    if (signal.aborted) return;
    const to = (row) => `#/entities/${encodeURIComponent(row.entityId.name)}/${encodeURIComponent(row.entityId.key)}`;
    list.replaceChildren(body.length
      ? table([
        { name: "Key", show: (row) => h("a", { href: to(row) }, row.entityId.key) },
        { name: "State", show: (row) => JSON.stringify(row.state).slice(0, 200) }], body, (row) => { location.hash = to(row); })
      : h("p", { class: "soft" }, "None."));
    next.dataset.token = more ?? "";
    next.disabled = !more;
    previous.disabled = pages.length < 2;
  }
  return look();
}

export async function entity(view, { signal }, name, key) {
  const path = `/entities/${encodeURIComponent(name)}/${encodeURIComponent(key)}`;
  const state = h("div");
  const about = h("div");
  let present = null;
  view.append(h("h1", {}, `${name} / ${key}`),
    h("div", { class: "row" },
      h("button", { onclick: signalIt }, "signal…"), h("button", { onclick: callIt }, "call…"),
      h("button", { onclick: edit }, "edit state…"), h("button", { class: "danger", onclick: remove }, "delete")),
    h("div", { class: "two" }, card("State, as it is committed", state), card("Mailbox", about)));

  const operation = (title, verb) => ask(title, [{ name: "operation", label: "Operation", required: true }, { name: "input", label: "Input (JSON)", long: true }], verb);
  const input = (given) => (given.input.trim() ? JSON.parse(given.input) : undefined);
  async function signalIt() {
    const given = await operation(`Signal ${name}/${key}`, "Signal");
    if (given) await act("signal", () => send("POST", `${path}?op=${encodeURIComponent(given.operation)}`, input(given)));
  }
  async function callIt() {
    const given = await operation(`Call ${name}/${key}`, "Call");
    if (given) await act("call", async () => {
      const result = await send("POST", `${path}/call/${encodeURIComponent(given.operation)}`, input(given));
      await ask("Result", [{ name: "result", label: given.operation, long: true, value: JSON.stringify(result, null, 2) }], "Close");
    });
  }
  async function edit() {
    const given = await ask(`Edit ${name}/${key}`, [
      { name: "state", label: "State (JSON)", long: true, value: JSON.stringify(present, null, 2) },
      { name: "reason", label: "Why (kept in the record)", required: true }], "Save");
    if (given) await act("edit", () => send("PUT", `${path}?reason=${encodeURIComponent(given.reason)}`, JSON.parse(given.state)));
  }
  async function remove() {
    if (await ask(`Delete ${name}/${key}?`, [], "Delete")) await act("delete", () => send("DELETE", path));
  }
  const reasons = h("div", { id: "why" });
  const mailbox = h("div");
  about.append(reasons, mailbox);
  async function inspect() {
    const { body: why } = await get(`${path}/why`);
    if (!signal.aborted) reasons.replaceChildren(h("p", {}, why.text), chain(why.chain));
    const { body } = await get(`${path}/inspect`);
    if (!signal.aborted) mailbox.replaceChildren(json(body));
  }
  follow(`${path}/watch`, (event, value) => {
    if (event === "problem") { state.replaceChildren(h("p", { class: "Failed" }, value.detail)); return; }
    present = value;
    state.replaceChildren(value === null ? h("p", { class: "soft" }, "It does not exist.") : json(value));
  }, signal);
  const timer = setInterval(() => inspect().catch(() => {}), 2000);
  signal.addEventListener("abort", () => clearInterval(timer));
  await inspect().catch((error) => mailbox.replaceChildren(h("p", { class: "soft" }, error.message)));
}
