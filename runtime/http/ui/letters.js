// What was set aside: messages that nobody could apply, with the reason.
import { act, get, send } from "./api.js";
import { ask, button, card, count, h, none, often, redraw, table, toast, when } from "./dom.js";

const LOOK_MS = 3000;

export async function letters(view, { signal }) {
  const list = h("div");
  let pages = [""];
  const target = h("input", { type: "search", placeholder: "Counter, Counter/hits, an instance id", "aria-label": "For" });
  const chosen = () => (target.value ? `?target=${encodeURIComponent(target.value)}` : "");
  const refresh = async () => {
    const token = pages.at(-1);
    const { body, next: more } = await get(`/dead-letters${chosen()}`, token ? { "x-ms-continuation-token": token } : {});
    if (signal.aborted || token !== pages.at(-1)) return;
    redraw(list, body.length ? shown(body, refresh) : none("Nothing is set aside."));
    next.dataset.token = more ?? "";
    next.disabled = !more;
    previous.disabled = pages.length < 2;
  };
  const show = () => refresh().catch((error) => toast(error.message, true));
  const next = button("Next page", () => { pages.push(next.dataset.token); show(); });
  const previous = button("Previous page", () => { pages.pop(); show(); });
  const all = (verb, method, path, danger) => button(`${verb} all`, async () => {
    if (!(await ask(`${verb} ${target.value ? `all for ${target.value}` : "all of them"}?`, [], verb, { danger }))) return;
    if (await act(verb, () => send(method, path + chosen()))) await refresh();
  }, { class: danger ? "danger" : null });
  target.addEventListener("change", () => { pages = [""]; show(); });
  view.append(h("h1", {}, "Dead letters"),
    h("div", { class: "row" }, target, all("Replay", "POST", "/dead-letters/replay", false), all("Delete", "DELETE", "/dead-letters", true)),
    card("", list), h("div", { class: "row" }, previous, next));
  often(refresh, LOOK_MS, signal);
  await refresh();
}

function shown(found, refresh) {
  const one = (verb, method, path) => async () => { if (await act(verb, () => send(method, path))) await refresh(); };
  const remove = (letter) => async () => { if (await ask(`Delete a message for ${letter.target || "nobody"}?`, [], "Delete", { danger: true })) await one("Delete", "DELETE", `/dead-letters/${letter.id}`)(); };
  return table([
    { name: "For", id: true, show: (letter) => letter.target || "unreadable" },
    { name: "Message", show: (letter) => letter.what },
    { name: "Reason", wide: true, show: (letter) => letter.reason },
    { name: "Set aside", show: (letter) => when(letter.time) },
    { name: "Bytes", number: true, show: (letter) => count(letter.size) },
    { name: "", show: (letter) => h("div", { class: "buttons" },
      letter.target ? button("Replay", one("Replay", "POST", `/dead-letters/${letter.id}/replay`)) : null,
      button("Delete", remove(letter), { class: "danger" })) }], found);
}
