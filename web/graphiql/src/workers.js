import GraphQLWorker from "monaco-graphql/esm/graphql.worker.js?worker";
import JsonWorker from "monaco-editor/esm/vs/language/json/json.worker.js?worker";

/**
 * Where Monaco gets its workers: our own static files. The JSON worker is the plain editor worker with the JSON
 * service added, so it also serves every other label and the plain one need not be shipped.
 */
self.MonacoEnvironment = {
  getWorker: (_workerId, label) => (label === "graphql" ? new GraphQLWorker() : new JsonWorker()),
};
