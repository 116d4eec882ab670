import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { OperationTypeNode } from "graphql";
import { createClient } from "graphql-ws";
import { WebSocket } from "ws";
import { runSession } from "./session.mjs";

/** Apollo Client without React: HTTP for queries and mutations, `GraphQLWsLink` for subscriptions. */
function connect({ url, wsUrl, authorization }) {
  const socket = createClient({
    url: wsUrl,
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    connectionParams: { authorization },
  });
  const client = new ApolloClient({
    cache: new InMemoryCache(),
    link: ApolloLink.split(
      ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
      new GraphQLWsLink(socket),
      new HttpLink({ uri: url, headers: { authorization } }),
    ),
  });
  return {
    async execute(document, variables) {
      const parsed = gql(document);
      const mutates = parsed.definitions[0].operation === OperationTypeNode.MUTATION;
      const answer = mutates
        ? client.mutate({ mutation: parsed, variables })
        : client.query({ query: parsed, variables, fetchPolicy: "network-only" });
      return (await answer).data;
    },
    subscribe: (document, variables, sink) =>
      client.subscribe({ query: gql(document), variables, fetchPolicy: "no-cache" }).subscribe({
        ...sink,
        next: (result) => (result.error ? sink.error(result.error) : sink.next(result.data)),
      }),
    async close() {
      client.stop();
      await socket.dispose();
    },
  };
}

await runSession(connect);
