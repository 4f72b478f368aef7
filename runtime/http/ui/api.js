// The HTTP API, with the key that the user gave, if any. The key is kept for this tab only.
import { ask, toast } from "./dom.js";

let base = "";
const KEY = "lungfish-key";

export async function configure() {
  const config = await (await fetch("config.json")).json();
  base = config.api;
  return config;
}

const headers = () => (sessionStorage.getItem(KEY) ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

async function problem(response) {
  try { return (await response.json()).detail ?? response.statusText; } catch { return response.statusText; }
}

let asking = null;
let declined = false;

// Who does not want to give a key is not asked again before he goes to another page.
addEventListener("hashchange", () => { declined = false; });

async function askForKey() {
  if (declined) return false;
  asking ??= ask("This server wants an API key", [{ name: "key", label: "Key", secret: true, required: true }], "Use it");
  const given = await asking;
  asking = null;
  declined = given === null;
  if (given) sessionStorage.setItem(KEY, given.key);
  return given !== null;
}

async function request(path, options = {}) {
  const used = sessionStorage.getItem(KEY);
  const response = await fetch(base + path, { ...options, headers: { ...options.headers, ...headers() } });
  // Meanwhile another request may have been given one.
  if (response.status === 401 && (sessionStorage.getItem(KEY) !== used || (await askForKey()))) return request(path, options);
  return response;
}

export async function get(path, extra = {}) {
  const response = await request(path, { headers: extra });
  if (!response.ok) throw Object.assign(new Error(await problem(response)), { status: response.status });
  const body = await response.json();
  return { body, next: response.headers.get("x-ms-continuation-token") };
}

export async function send(method, path, body, extra = {}) {
  const options = body === undefined ? { method, headers: extra }
    : { method, body: JSON.stringify(body), headers: { ...extra, "Content-Type": "application/json" } };
  const response = await request(path, options);
  if (!response.ok) throw new Error(await problem(response));
  return response.headers.get("Content-Type")?.startsWith("application/json") ? response.json() : null;
}

// Do something, and say how it went. Resolves to what was answered (true if that is nothing), or to false.
export async function act(what, work) {
  try { const answer = await work(); toast(`${what}: done`); return answer ?? true; } catch (error) { toast(`${what}: ${error.message}`, true); return false; }
}

const shown = () => !document.hidden || new Promise((resolve) => {
  addEventListener("visibilitychange", resolve, { once: true });
});

// One connection, while somebody sees the page: a browser has six for all of its tabs.
async function read(path, last, signal, state, told) {
  const stop = new AbortController();
  const hide = () => document.hidden && stop.abort();
  addEventListener("visibilitychange", hide);
  try {
    const response = await request(path, { signal: AbortSignal.any([signal, stop.signal]), headers: last ? { "Last-Event-ID": last } : {} });
    if (!response.ok) throw new Error(await problem(response));
    state(true);
    let text = "";
    for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) return false;
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
        if (fields.event === "end") return true;
        if (fields.event) told(fields.event, JSON.parse(fields.data), fields.id);
      }
    }
  } finally {
    removeEventListener("visibilitychange", hide);
  }
}

// Follow a stream of events until the signal aborts; reconnects, and goes on after the last event id.
export async function follow(path, told, signal, state = () => {}) {
  let last = "";
  const keep = (event, value, id) => { if (id) last = id; told(event, value); };
  while (!signal.aborted) {
    await shown();
    try {
      if (await read(path, last, signal, state, keep)) return;
    } catch (error) {
      if (signal.aborted) return;
      if (!document.hidden) state(false, error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 0 : 2000));
  }
}
