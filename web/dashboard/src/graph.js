// The graph, asked as any client asks it. The session cookie travels because the address is of our own origin; the
// header shows the server that a page of its own sent the request, since a form or an image elsewhere cannot.

const HEADERS = { "content-type": "application/json", "x-quarterdeck-csrf": "1" };
const RESULT = "application/graphql-response+json, application/json;q=0.9";

/** What the graph refused, in its own words; `signedOut` where it does not know any more who asks. */
export class Refused extends Error {
  constructor(errors) {
    super(errors.map((error) => error.message).join(" "));
    this.signedOut = errors.some((error) => error.extensions?.code === "UNAUTHENTICATED");
  }
}

/** The data of a query. Throws Refused, and an Error in words where no answer came. */
export async function ask(query, variables, signal) {
  const { data, errors } = await (await send({ query, variables }, RESULT, signal)).json().catch(unreadable);
  if (errors) throw new Refused(errors);
  return data;
}

/** Calls `tell` with the data of every result of a subscription, until the server ends it. Throws as `ask` does. */
export async function follow(query, tell) {
  const response = await send({ query }, "text/event-stream");
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
    const { errors } = await response.json().catch(unreadable);
    throw errors ? new Refused(errors) : new Error(`The server answers ${response.status}.`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch(unreachable);
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:") || line.length < 8) continue;
      const { data, errors } = JSON.parse(line.slice(5));
      if (errors) throw new Refused(errors);
      if (data) tell(data);
    }
  }
}

function send(request, accept, signal) {
  return fetch("/graphql", { method: "POST", headers: { ...HEADERS, accept }, body: JSON.stringify(request), signal }).catch(
    unreachable,
  );
}

function unreachable(error) {
  throw error.name === "AbortError" ? error : new Error("The server cannot be reached.");
}

function unreadable(error) {
  throw error.name === "AbortError" ? error : new Error("The server's answer cannot be read.");
}
