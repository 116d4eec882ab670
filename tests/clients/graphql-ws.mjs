import { createClient } from "graphql-ws";
import { WebSocket } from "ws";
import { runSession } from "./session.mjs";

/** Everything over one socket, as `graphql-ws` itself does it. */
function connect({ wsUrl, authorization }) {
  const client = createClient({
    url: wsUrl,
    webSocketImpl: WebSocket,
    lazy: false,
    retryAttempts: 0,
    connectionParams: { authorization },
  });
  const data = (result) => {
    if (result.errors) throw new Error(JSON.stringify(result.errors));
    return result.data;
  };
  return {
    async execute(query, variables) {
      for await (const result of client.iterate({ query, variables })) return data(result);
    },
    subscribe: (query, variables, sink) =>
      client.subscribe({ query, variables }, { ...sink, next: (result) => sink.next(data(result)) }),
    close: () => client.dispose(),
  };
}

await runSession(connect);
