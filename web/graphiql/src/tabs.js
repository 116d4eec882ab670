/**
 * The tabs of a first visit, in the order of a first session. Each is a document in tabs/, with the variables of the
 * same name beside it where it takes any.
 */
const documents = import.meta.glob("./tabs/*.graphql", { query: "?raw", import: "default", eager: true });
const variables = import.meta.glob("./tabs/*.json", { query: "?raw", import: "default", eager: true });

export const TABS = Object.keys(documents)
  .sort()
  .map((path) => ({ query: documents[path], variables: variables[path.replace(/graphql$/, "json")] }));
