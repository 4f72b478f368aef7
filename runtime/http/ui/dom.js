// Elements from calls. Text is always text: nothing that came from a user is ever parsed as HTML.

export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, to] of Object.entries(value)) made.style.setProperty(property, to);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export const button = (text, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, text);

export const card = (title, ...children) => h("section", { class: "card" }, title ? h("h2", {}, title) : null, children);

export const figure = (name, value, note = "") =>
  h("div", { class: "card" }, h("div", { class: "soft" }, name), h("div", { class: "figure" }, value), h("div", { class: "soft" }, note));

export const badge = (status) => h("span", { class: `status ${status}` }, status);
export const none = (text) => h("p", { class: "soft" }, text);
export const link = (id) => h("a", { href: `#/instances/${encodeURIComponent(id)}` }, id);

// A table whose rows may be opened with Enter, a click, and j and k.
export function table(columns, rows, open = null) {
  const kind = (column) => (["number", "wide", "id"].find((name) => column[name]));
  const cell = (row, column) => h("td", { class: kind(column) }, column.show(row));
  const line = (row) =>
    h("tr", open ? { tabindex: 0, onclick: (event) => event.target.closest("a,button,input") || open(row),
      onkeydown: (event) => event.key === "Enter" && event.target.tagName === "TR" && open(row) } : {},
      columns.map((column) => cell(row, column)));
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { class: kind(column), scope: "col" }, column.head ? column.head() : column.name)))),
    h("tbody", {}, rows.map(line))));
}

// Names and values; those without a value are left out.
export const facts = (rows) => h("dl", {}, rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

// How to find a node of a box again in what replaces it; nothing if it is not in there.
function steps(box, node) {
  const found = [];
  for (; node !== box; node = node.parentNode) {
    if (!node?.parentNode) return [];
    found.unshift([...node.parentNode.childNodes].indexOf(node));
  }
  return found;
}

// Show something else in a box. What is the same stays as it is; who was at the keyboard, had scrolled, or had opened
// something there, finds it so.
export function redraw(box, ...children) {
  const made = h("div", {}, children);
  const details = made.querySelectorAll("details");
  box.querySelectorAll("details").forEach((old, at) => { if (old.open && details[at]) details[at].open = true; });
  if (box.childNodes.length === made.childNodes.length
    && [...box.childNodes].every((node, at) => node.isEqualNode(made.childNodes[at]))) return;
  const focused = steps(box, document.activeElement);
  const scrolled = [...box.querySelectorAll(".scroll,pre")].map((node) => [node.scrollLeft, node.scrollTop]);
  box.replaceChildren(...made.childNodes);
  box.querySelectorAll(".scroll,pre").forEach((node, at) => { [node.scrollLeft, node.scrollTop] = scrolled[at] ?? [0, 0]; });
  if (focused.length) focused.reduce((node, at) => node?.childNodes[at], box)?.focus?.({ preventScroll: true });
}

export function json(value) {
  return h("pre", { tabindex: 0 }, value === undefined ? "" : JSON.stringify(value, null, 2));
}

export const when = (text) => (text ? h("time", { datetime: text, title: text }, new Date(text).toLocaleString()) : "");
export const count = (number) => Number(number ?? 0).toLocaleString();
export const many = (number, thing) => `${count(number)} ${thing}${number === 1 ? "" : "s"}`;
// A time of which there may have been none.
export const latency = (seconds) => (seconds ? `${seconds < 0.01 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms` : "–");
export const cut = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

// What holds something up: one line a reason, deeper for whom it waits for, with who can unblock it.
export const chain = (reasons) => (reasons.length < 2 && !reasons[0]?.who ? "" : h("ul", {}, reasons.map((reason) =>
  h("li", { style: { "margin-left": `${1.5 * reason.depth}em` } }, `${reason.subject} ${reason.text}`,
    reason.since ? h("span", { class: "soft" }, " since ", when(reason.since)) : "",
    reason.until ? h("span", { class: "soft" }, `, ${reason.at} at `, when(reason.until)) : "",
    reason.who ? h("span", { class: "soft" }, ` → ${reason.who}`) : ""))));

// Why somebody waits, as it is known now.
export const reasons = (why) => [h("p", {}, why.text), chain(why.chain)];

// Look now and again, as long as the page is shown and somebody sees it; never twice at once.
export function often(look, every, signal) {
  let busy = false;
  const timer = setInterval(async () => {
    if (document.hidden || busy) return;
    busy = true;
    await look().catch(() => {});
    busy = false;
  }, every);
  signal.addEventListener("abort", () => clearInterval(timer));
}

export function toast(text, bad = false) {
  const shown = document.getElementById("toast");
  shown.textContent = text;
  shown.className = bad ? "bad" : "";
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { shown.textContent = ""; }, bad ? 9000 : 3500);
}

// JSON that does not parse keeps the dialog open, with what was typed.
function parses(field, input) {
  try { if (field.json && input.value.trim()) JSON.parse(input.value); input.setCustomValidity(""); } catch (error) { input.setCustomValidity(error.message); }
}

// Who waits for the dialog that is open.
let waiting = null;

function open(content) {
  const dialog = document.getElementById("dialog");
  waiting?.(null);
  waiting = null;
  dialog.replaceChildren(content);
  // The event comes late: another dialog may be open by then.
  dialog.onclose = () => { if (!dialog.open) { waiting?.(null); waiting = null; } };
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("input,textarea") ?? dialog.querySelector("button.main")).focus();
  return dialog;
}

function fieldset(field, input) {
  const choices = `choices-${field.name}`;
  if (field.choices) input.setAttribute("list", choices);
  return [h("label", { for: input.id }, field.label), input,
    field.choices ? h("datalist", { id: choices }, field.choices.map((value) => h("option", { value }))) : null];
}

// Ask for some fields; resolves to their values, or to null.
export function ask(title, fields, verb = "OK", { danger = false } = {}) {
  const inputs = fields.map((field) => h(field.json ? "textarea" : "input",
    { name: field.name, id: `ask-${field.name}`, type: field.json ? null : field.secret ? "password" : "text", required: field.required,
      autocomplete: "off", spellcheck: "false", oninput: (event) => event.target.setCustomValidity("") }));
  fields.forEach((field, at) => { inputs[at].value = field.value ?? ""; });
  return new Promise((resolve) => {
    const done = (result) => { waiting = null; dialog.close(); resolve(result); };
    const submit = (event) => {
      event.preventDefault();
      fields.forEach((field, at) => parses(field, inputs[at]));
      if (event.target.reportValidity()) done(Object.fromEntries(inputs.map((input) => [input.name, input.value])));
    };
    const dialog = open(h("form", { novalidate: true, onsubmit: submit }, h("h2", {}, title),
      fields.map((field, at) => fieldset(field, inputs[at])),
      h("div", { class: "row end" },
        h("button", { class: danger ? "main danger" : "main", type: "submit" }, verb), button("Back", () => done(null)))));
    waiting = resolve;
  });
}

// Show something until it is closed.
export function tell(title, ...content) {
  const dialog = open(h("div", {}, h("h2", {}, title), content,
    h("div", { class: "row end" }, button("Close", () => dialog.close(), { class: "main" }))));
}

export const parsed = (text) => (text.trim() ? JSON.parse(text) : undefined);
