import { createClient } from "graphql-sse";
import { runSession } from "./session.mjs";

/** Server-sent events in distinct connections mode: each operation is a request of its own. */
function connect({ url, authorization }) {
  const client = createClient({ url, singleConnection: false, retryAttempts: 0, headers: { authorization } });
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
