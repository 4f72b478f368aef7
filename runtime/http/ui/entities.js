// Entities: types, keys, a state as it changes, and an editor whose changes leave a record.
import { act, follow, get, send } from "./api.js";
import { ask, button, card, count, cut, facts, h, json, link, none, often, parsed, reasons, redraw, table, tell, toast, when } from "./dom.js";

const LOOK_MS = 3000;
const address = (name, key) => `#/entities/${encodeURIComponent(name)}/${encodeURIComponent(key)}`;

const OPERATION = [{ name: "operation", label: "Operation", required: true }, { name: "input", label: "Input (JSON)", json: true }];

export function entities(view, { config, signal }, name = config.entities[0], query = "") {
  const wanted = new URLSearchParams(query);
  const list = h("div");
  const busy = h("div");
  let pages = [""];
  const show = () => look().catch((error) => toast(error.message, true));
  const next = button("Next page", () => { pages.push(next.dataset.token); show(); });
  const previous = button("Previous page", () => { pages.pop(); show(); });
  const type = h("input", { "aria-label": "Type", placeholder: "type", value: name ?? "", list: "types",
    onchange: (event) => { location.hash = `#/entities/${encodeURIComponent(event.target.value)}`; } });
  const prefix = h("input", { type: "search", "aria-label": "Key begins with", placeholder: "key begins with", value: wanted.get("prefix") ?? "", onchange: () => {
    history.replaceState(null, "", `#/entities/${encodeURIComponent(type.value)}${prefix.value ? `?${new URLSearchParams({ prefix: prefix.value })}` : ""}`);
    pages = [""];
    show();
  } });
  const types = config.entities.map((each) => h("a", { href: `#/entities/${encodeURIComponent(each)}`, "aria-current": each === name ? "page" : null }, each));
  view.append(h("h1", {}, "Entities"), h("datalist", { id: "types" }, config.entities.map((each) => h("option", { value: each }))),
    types.length ? h("nav", { class: "row", "aria-label": "Types" }, types) : "",
    h("div", { class: "row" }, type, prefix, button("Open by key…", open), button("Signal all…", broadcast)),
    card("", list), h("div", { class: "row" }, previous, next), busy);

  async function open() {
    const given = await ask("Open an entity", [{ name: "key", label: "Key", required: true }], "Open");
    if (given) location.hash = address(type.value, given.key);
  }

  async function broadcast() {
    const which = `${type.value}${prefix.value ? ` whose key begins with ${prefix.value}` : ""}`;
    const given = await ask(`Signal every ${which}`, OPERATION, "Signal all", { danger: true });
    if (given) await act("Signal all", () => send("POST", `/entities/${encodeURIComponent(type.value)}?${new URLSearchParams({ op: given.operation, prefix: prefix.value })}`, parsed(given.input)));
  }

  async function look() {
    if (!type.value) { redraw(list, none("Which type?")); return; }
    const token = pages.at(-1);
    const path = `/entities/${encodeURIComponent(type.value)}?fetchState=true&top=50&prefix=${encodeURIComponent(prefix.value)}`;
    const { body, next: more } = await get(path, token ? { "x-ms-continuation-token": token } : {});
    if (signal.aborted || token !== pages.at(-1)) return;
    const to = (row) => address(row.entityId.name, row.entityId.key);
    redraw(list, body.length
      ? table([
        { name: "Key", id: true, show: (row) => h("a", { href: to(row) }, row.entityId.key) },
        { name: "State", wide: true, show: (row) => cut(JSON.stringify(row.state), 200) }], body, (row) => { location.hash = to(row); })
      : none("None."));
    next.dataset.token = more ?? "";
    next.disabled = !more;
    previous.disabled = pages.length < 2;
  }

  async function hot() {
    const { body } = await get("/hot-entities");
    if (!signal.aborted) redraw(busy, body.length ? card("Busiest in the last minutes", table([
      { name: "Entity", id: true, show: ({ entityId }) => h("a", { href: address(entityId.name, entityId.key) }, `${entityId.name}/${entityId.key}`) },
      { name: "Host", show: (row) => row.host },
      { name: "Share of its host's work", number: true, show: (row) => `${Math.round(100 * row.share)} %` }], body)) : "");
  }

  hot().catch(() => {});
  often(() => Promise.all([look(), hot()]), LOOK_MS, signal);
  return look();
}

export async function entity(view, { signal }, name, key) {
  const path = `/entities/${encodeURIComponent(name)}/${encodeURIComponent(key)}`;
  const [state, why, mailbox, record] = [h("div"), h("div", { id: "why" }), h("div"), h("div")];
  let present = null;
  let edits = -1;
  view.append(h("h1", {}, `${name} / ${key}`),
    h("div", { class: "row" }, button("Signal…", signalIt), button("Call…", callIt), button("Edit state…", edit), button("Delete", remove, { class: "danger" })),
    h("div", { class: "two" }, card("State, as it is committed", state), card("Mailbox", why, mailbox)), record);

  async function signalIt() {
    const given = await ask(`Signal ${name}/${key}`, OPERATION, "Signal");
    if (given) await act("Signal", () => send("POST", `${path}?op=${encodeURIComponent(given.operation)}`, parsed(given.input)));
  }
  async function callIt() {
    const given = await ask(`Call ${name}/${key}`, OPERATION, "Call");
    if (given) await act("Call", async () => tell(`Result of ${given.operation}`, json(await send("POST", `${path}/call/${encodeURIComponent(given.operation)}`, parsed(given.input)))));
  }
  async function edit() {
    const given = await ask(`Edit ${name}/${key}`, [
      { name: "state", label: "State (JSON)", json: true, required: true, value: JSON.stringify(present ?? {}, null, 2) },
      { name: "reason", label: "Why (kept in the record)", required: true }], "Save");
    if (given) await act("Edit", () => send("PUT", `${path}?reason=${encodeURIComponent(given.reason)}`, parsed(given.state))) && await inspect();
  }
  async function remove() {
    const given = await ask(`Delete ${name}/${key}?`, [{ name: "reason", label: "Why", required: true }], "Delete", { danger: true });
    if (given) await act("Delete", () => send("DELETE", `${path}?reason=${encodeURIComponent(given.reason)}`)) && await inspect();
  }

  async function inspect() {
    const { body: known } = await get(`${path}/why`);
    if (!signal.aborted) redraw(why, reasons(known));
    const { body: found } = await get(`${path}/inspect`);
    if (signal.aborted) return;
    redraw(mailbox, facts([
      ["Locked by", found.holder && link(found.holder)], ["Since", found.since && when(found.since)],
      ["Wait for the lock", found.waiting.length ? found.waiting.map((id) => h("div", {}, link(id))) : null],
      ["Operations that wait", count(found.operations)], ["Runs", found.running.join(", ") || "nothing"], ["Stored bytes", count(found.size)]]));
    if (found.edits !== edits) {
      redraw(record, recorded((await get(`${path}/edits`)).body));
      edits = found.edits;
    }
  }

  follow(`${path}/watch`, (event, value) => {
    if (event === "problem") { redraw(state, h("p", { class: "Failed" }, value.detail)); return; }
    present = value;
    redraw(state, value === null ? none("It does not exist.") : json(value));
  }, signal);
  const look = () => inspect().catch((error) => redraw(mailbox, none(error.message)));
  often(look, LOOK_MS, signal);
  await look();
}

const recorded = (edits) => (edits.length ? card("Edits by hand", table([
  { name: "When", show: (row) => when(row.at) },
  { name: "By", show: (row) => row.by },
  { name: "Why", wide: true, show: (row) => row.reason },
  { name: "State before", wide: true, show: (row) => cut(JSON.stringify(row.before), 200) }], edits.toReversed())) : "");
