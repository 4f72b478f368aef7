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

export const card = (title, ...children) => h("section", { class: "card" }, title ? h("h2", {}, title) : null, children);

export const figure = (name, value, note = "") =>
  h("div", { class: "card" }, h("div", { class: "soft" }, name), h("div", { class: "figure" }, value), h("div", { class: "soft" }, note));

export const badge = (status) => h("span", { class: `status ${status}` }, status);

// A table whose rows may be opened with Enter, a click, and j and k.
export function table(columns, rows, open = null) {
  const cell = (row, column) => h("td", { class: column.number ? "number" : null }, column.show(row));
  const line = (row) =>
    h("tr", open ? { tabindex: 0, onclick: (event) => event.target.closest("a,button,input") || open(row),
      onkeydown: (event) => event.key === "Enter" && event.target.tagName === "TR" && open(row) } : {},
      columns.map((column) => cell(row, column)));
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((column) => h("th", { class: column.number ? "number" : null, scope: "col" }, column.name)))),
    h("tbody", {}, rows.map(line))));
}

export function json(value) {
  return h("pre", { tabindex: 0 }, value === undefined ? "" : JSON.stringify(value, null, 2));
}

export const when = (text) => (text ? new Date(text).toLocaleString() : "");
export const count = (number) => Number(number ?? 0).toLocaleString();

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
    reason.since ? h("span", { class: "soft" }, ` since ${when(reason.since)}`) : "",
    reason.until ? h("span", { class: "soft" }, `, ${reason.at} at ${when(reason.until)}`) : "",
    reason.who ? h("span", { class: "soft" }, ` → ${reason.who}`) : ""))));

export function toast(text, bad = false) {
  const shown = document.getElementById("toast");
  shown.textContent = text;
  shown.className = bad ? "bad" : "";
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { shown.textContent = ""; }, bad ? 9000 : 3500);
}

// Ask for some fields; resolves to their values, or to null.
export function ask(title, fields, verb = "OK") {
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    const inputs = fields.map((field) => h(field.long ? "textarea" : "input",
      { name: field.name, id: `ask-${field.name}`, type: field.secret ? "password" : "text", required: field.required, autocomplete: "off" }));
    fields.forEach((field, at) => { inputs[at].value = field.value ?? ""; });
    const done = (result) => { dialog.onclose = null; dialog.close(); resolve(result); };
    const form = h("form", { onsubmit: (event) => { event.preventDefault(); done(Object.fromEntries(inputs.map((input) => [input.name, input.value]))); } },
      h("h2", {}, title),
      fields.map((field, at) => [h("label", { for: `ask-${field.name}` }, field.label), inputs[at]]),
      h("div", { class: "row", style: { "margin-top": "1em" } },
        h("button", { class: "main", type: "submit" }, verb),
        h("button", { type: "button", onclick: () => done(null) }, "Cancel")));
    dialog.replaceChildren(form);
    dialog.onclose = () => resolve(null);
    dialog.showModal();
    (inputs[0] ?? form.querySelector("button")).focus();
  });
}
