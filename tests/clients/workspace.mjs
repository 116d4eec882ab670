/**
 * Works in a session until its standard input ends: follows `workspace`, prints every item as a JSON line, and goes on
 * from its last cursor at the next address whenever a connection is lost.
 *
 * `node workspace.mjs TOKEN SESSION CLIENT WS_URL…`
 */
import { readFileSync } from "node:fs";
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";

const [token, sessionId, clientId, ...urls] = process.argv.slice(2);
const query = readFileSync(new URL("documents/workspace.graphql", import.meta.url), "utf8");
const print = (line) => console.log(JSON.stringify(line));

process.stdin.on("end", () => process.exit(0)).resume();

let after = null;
for (let place = 0; ; place++) {
  const url = urls[place % urls.length];
  const client = createClient({
    url,
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    connectionParams: { authorization: `Bearer ${token}` },
  });
  print({ at: url });
  try {
    for await (const { data, errors } of client.iterate({ query, variables: { sessionId, after, clientId } })) {
      if (errors) throw new Error(JSON.stringify(errors));
      if (data.workspace.event) after = data.workspace.cursor;
      print(data.workspace);
    }
  } catch (error) {
    print({ lost: String(error?.reason ?? error?.message ?? error) });
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
}
