import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";
import { runSession } from "./session.mjs";

/** urql: queries and mutations by fetch, subscriptions through its exchange over `graphql-ws`. */
function connect({ url, wsUrl, authorization }) {
  const socket = createClient({
    url: wsUrl,
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    connectionParams: { authorization },
  });
  const client = new Client({
    url,
    preferGetMethod: false,
    fetchOptions: { headers: { authorization } },
    exchanges: [
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: (request) => ({
          subscribe: (sink) => ({
            unsubscribe: socket.subscribe({ query: request.query ?? "", variables: request.variables }, sink),
          }),
        }),
      }),
    ],
  });
  const data = (result) => {
    if (result.error) throw result.error;
    return result.data;
  };
  return {
    async execute(document, variables) {
      const run = document.trimStart().startsWith("mutation") ? client.mutation : client.query;
      return data(await run.call(client, document, variables).toPromise());
    },
    subscribe: (document, variables, sink) =>
      client
        .subscription(document, variables)
        .subscribe((result) => (result.error ? sink.error(result.error) : sink.next(result.data))),
    close: () => socket.dispose(),
  };
}

await runSession(connect);
