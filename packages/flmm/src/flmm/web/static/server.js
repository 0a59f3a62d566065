// Requests to the server of `flmm demo`: JSON in and out, answers in pieces, and work that can be cancelled.

const JSON_TYPE = { "Content-Type": "application/json" };

async function request(path, options) {
  try {
    return await fetch(path, options);
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Error("the server does not answer: is `flmm demo` still running?");
  }
}

async function checked(response) {
  if (response.ok) return response;
  let reply = null;
  try {
    reply = await response.json();
  } catch {
    // No message of the demo itself.
  }
  throw new Error(reply?.error ?? `the server answered ${response.status} ${response.statusText}`);
}

export async function get(path) {
  return (await checked(await request(path))).json();
}

export async function file(path) {
  return (await checked(await request(path))).blob();
}

export async function post(path, body, { headers = JSON_TYPE, signal } = {}) {
  return (await checked(await request(path, { method: "POST", headers, body, signal }))).json();
}

export const send = (path, fields, signal) => post(path, JSON.stringify(fields), { signal });

export function sendPicture(blob, name) {
  const headers = { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(name) };
  return post("api/picture", blob, { headers });
}

// Asks a question. `heard` gets each event before the last: {ahead} or {piece}. Returns the last one.
export async function ask(fields, heard, signal) {
  const options = { method: "POST", headers: JSON_TYPE, body: JSON.stringify(fields), signal };
  const response = await checked(await request("api/ask", options));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server ended the answer: ask again");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.error) throw new Error(event.error);
      if ("answer" in event) return event;
      heard(event);
    }
  }
}
