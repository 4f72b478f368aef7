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
async function askForKey() {
  asking ??= ask("This server wants an API key", [{ name: "key", label: "Key", secret: true, required: true }], "Use it");
  const given = await asking;
  asking = null;
  if (given) sessionStorage.setItem(KEY, given.key);
  return given !== null;
}

async function request(path, options = {}) {
  const response = await fetch(base + path, { ...options, headers: { ...options.headers, ...headers() } });
  if (response.status === 401 && (await askForKey())) return request(path, options);
  return response;
}

export async function get(path, extra = {}) {
  const response = await request(path, { headers: extra });
  if (!response.ok) throw Object.assign(new Error(await problem(response)), { status: response.status });
  const body = await response.json();
  return { body, next: response.headers.get("x-ms-continuation-token") };
}

export async function send(method, path, body) {
  const options = body === undefined ? { method } : { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await request(path, options);
  if (!response.ok) throw new Error(await problem(response));
  return response.status === 202 || response.status === 204 ? null : response.json();
}

// Do something, and say how it went.
export async function act(what, work) {
  try { await work(); toast(`${what}: done`); return true; } catch (error) { toast(`${what}: ${error.message}`, true); return false; }
}

// Follow a stream of events until the signal aborts; reconnects, and goes on after the last event id.
export async function follow(path, told, signal, state = () => {}) {
  let last = "";
  while (!signal.aborted) {
    try {
      const response = await request(path, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      if (!response.ok) throw new Error(await problem(response));
      state(true);
      let text = "";
      for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const parts = text.split("\n\n");
        text = parts.pop();
        for (const part of parts) {
          const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
          if (fields.id) last = fields.id;
          if (fields.event === "end") return;
          if (fields.event) told(fields.event, JSON.parse(fields.data));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      state(false, error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
