// One verb for all instances that match a filter: counted first, then done step by step, with its progress.
import { send } from "./api.js";
import { ask, count, h, tell, toast } from "./dom.js";

const STEP = 50;
const TOKEN = "x-ms-continuation-token";

// Resolves to whether anything may have been done.
export async function everyMatch(verb, wanted, signal) {
  try {
    const path = (more) => `/batch/${verb}?${new URLSearchParams([...wanted, ...Object.entries(more)])}`;
    const { matched } = await send("POST", path({ countOnly: "true" }));
    if (!matched) { toast(`${verb}: nothing that matches can be done so`, true); return false; }
    const danger = verb === "purge" || verb === "terminate";
    const given = await ask(`${verb} all ${count(matched)} that match?`, [{ name: "reason", label: "Reason" }], verb, { danger });
    if (!given) return false;
    await steps(verb, path({ top: String(STEP), reason: given.reason }), matched, signal);
    return true;
  } catch (error) {
    toast(`${verb}: ${error.message}`, true);
    return true;
  }
}

async function steps(verb, path, matched, signal) {
  const sum = { done: 0, refused: [], unknown: [] };
  const bar = h("progress", { max: matched, value: 0, "aria-label": verb });
  const text = h("p", { role: "status" });
  tell(`${verb} all that match`, bar, text);
  // Who closes the dialog, or leaves the page, stops it after the step that is under way.
  const stopped = () => signal.aborted || !bar.isConnected || !document.getElementById("dialog").open;
  let token = "";
  do {
    const step = await send("POST", path, undefined, token ? { [TOKEN]: token } : {});
    sum.done += step.done.length;
    sum.refused.push(...step.refused);
    sum.unknown.push(...step.unknown);
    token = step.continuation;
    bar.value = sum.done + sum.refused.length + sum.unknown.length;
    text.textContent = told(sum, token);
  } while (token && !stopped());
  toast(`${verb}: ${told(sum, token)}`, sum.refused.length + sum.unknown.length > 0 || Boolean(token));
}

function told(sum, token) {
  const parts = [`${count(sum.done)} done`];
  if (sum.refused.length) parts.push(`${count(sum.refused.length)} refused (${sum.refused[0].instanceId}: ${sum.refused[0].detail})`);
  if (sum.unknown.length) parts.push(`${count(sum.unknown.length)} unknown (${sum.unknown[0].instanceId}: ${sum.unknown[0].detail})`);
  return parts.join(", ") + (token ? "; there is more" : "");
}
