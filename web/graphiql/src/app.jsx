import { DOC_EXPLORER_PLUGIN } from "@graphiql/plugin-doc-explorer";
import { useGraphiQL } from "@graphiql/react";
import { GraphiQL } from "graphiql";
import { getOperationAST, parse } from "graphql";
import { useEffect } from "react";
import { Identity, SignInHint } from "./identity.jsx";
import { LivePanel } from "./live-panel.jsx";
import { live } from "./live.js";
import { TABS } from "./tabs.js";
import { EDITOR_THEME } from "./themes.js";
import { errorCodes, post } from "./transport.js";
import { noticeRefusal } from "./viewer.js";

/** GraphiQL's door to the server: subscriptions go to the Live panel, everything else is a POST. */
async function fetcher(request, { headers } = {}) {
  const operation = operationOf(request);
  const named = { ...request, operationName: operation?.name?.value };
  if (operation?.operation === "subscription") return live.start(named, headers);
  const result = await post(named, headers);
  if (errorCodes(result).includes("UNAUTHENTICATED")) noticeRefusal();
  return result;
}

/**
 * The operation to run. Just after a change of tabs GraphiQL still gives the name from the tab before, hence the
 * second attempt without it. Nothing is found in a document with a mistake: the server says what is wrong.
 */
function operationOf({ query, operationName }) {
  try {
    const document = parse(query);
    return getOperationAST(document, operationName) ?? getOperationAST(document);
  } catch {
    return null;
  }
}

export function App() {
  return (
    <GraphiQL
      fetcher={fetcher}
      defaultTabs={TABS}
      defaultEditorToolsVisibility="variables"
      editorTheme={EDITOR_THEME}
      visiblePlugin={DOC_EXPLORER_PLUGIN}
      inputValueDeprecation
      schemaDescription
    >
      <GraphiQL.Logo>
        <Identity />
      </GraphiQL.Logo>
      <GraphiQL.Footer>
        <LivePanel />
      </GraphiQL.Footer>
      <SignInHint />
      <WrappedLines />
    </GraphiQL>
  );
}

/** Wraps long lines of the operation editor, which GraphiQL has no setting for. */
function WrappedLines() {
  const editor = useGraphiQL((state) => state.queryEditor);
  useEffect(() => editor?.updateOptions({ wordWrap: "on" }), [editor]);
  return null;
}
