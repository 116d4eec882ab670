import { ApolloClient, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { createHash } from "node:crypto";

/**
 * Apollo's persisted-query link: `node persisted.mjs URL TOKEN POST|GET DOCUMENT`. The first client has to send the
 * text, the second finds it by its hash. Prints each request's method, whether it held the text, and the result.
 */
const [url, token, method, text] = process.argv.slice(2);

for (const number of [1, 2]) {
  const requests = [];
  const client = new ApolloClient({
    cache: new InMemoryCache(),
    link: new PersistedQueryLink({
      sha256: (query) => createHash("sha256").update(query).digest("hex"),
      useGETForHashedQueries: method === "GET",
    }).concat(
      new HttpLink({
        uri: url,
        headers: { authorization: `Bearer ${token}` },
        fetch: async (address, init) => {
          const response = await fetch(address, init);
          const sent = init.method === "GET" ? new URL(address).searchParams.has("query") : "query" in JSON.parse(init.body);
          requests.push({ method: init.method, text: sent, status: response.status });
          return response;
        },
      }),
    ),
  });
  const { data } = await client.query({ query: gql(text), fetchPolicy: "network-only" });
  console.log(JSON.stringify({ number, requests, data }));
}
