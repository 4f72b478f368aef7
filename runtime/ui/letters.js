// What was set aside: messages that nobody could apply, with the reason.
import { act, get, send } from "./api.js";
import { ask, card, count, h, table, when } from "./dom.js";

export async function letters(view) {
  const list = h("div");
  const target = h("input", { type: "search", placeholder: "Counter, Counter/hits, an instance id", "aria-label": "For" });
  const chosen = () => (target.value ? `?target=${encodeURIComponent(target.value)}` : "");
  const refresh = async (token) => {
    const { body, next } = await get(`/dead-letters${chosen()}`, token ? { "x-ms-continuation-token": token } : {});
    list.replaceChildren(body.length ? shown(body, refresh) : h("p", { class: "soft" }, "Nothing is set aside."),
      next ? h("button", { type: "button", onclick: () => refresh(next) }, "Next page") : "");
  };
  const all = (verb, method, path) => async () => {
    if (!(await ask(`${verb} ${target.value ? `all for ${target.value}` : "all of them"}?`, [], verb))) return;
    if (await act(verb, () => send(method, path + chosen()))) await refresh();
  };
  target.addEventListener("change", () => refresh());
  view.append(h("h1", {}, "Dead letters"),
    h("div", { class: "row" }, target,
      h("button", { type: "button", onclick: all("Replay", "POST", "/dead-letters/replay") }, "Replay all"),
      h("button", { type: "button", onclick: all("Delete", "DELETE", "/dead-letters") }, "Delete all")),
    card("", list));
  await refresh();
}

function shown(found, refresh) {
  const one = (verb, method, path) => async () => (await act(verb, () => send(method, path))) && refresh();
  return table([
    { name: "For", show: (letter) => letter.target || "unreadable" },
    { name: "Message", show: (letter) => letter.what },
    { name: "Reason", show: (letter) => letter.reason },
    { name: "Set aside", show: (letter) => when(letter.time) },
    { name: "Bytes", number: true, show: (letter) => count(letter.size) },
    { name: "", show: (letter) => [
      letter.target ? h("button", { type: "button", onclick: one("Replay", "POST", `/dead-letters/${letter.id}/replay`) }, "Replay") : null, " ",
      h("button", { type: "button", onclick: one("Delete", "DELETE", `/dead-letters/${letter.id}`) }, "Delete")] }], found);
}
