import { pick, useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useSyncExternalStore } from "react";
import { viewer } from "./viewer.js";
import { authorizationOf } from "./transport.js";

/** The wordmark and who is signed in, at the right of the tabs. */
export function Identity() {
  const { status, viewer: person, problem } = useSyncExternalStore(viewer.listen, viewer.snapshot);
  const authorization = useAuthorization();
  useFreshViewer(authorization, status);
  return (
    <div className="identity">
      <span className={`identity-chip ${status}`} role="status" title={problem ?? undefined}>
        {status === "signed-in" && <SignedIn {...person} byCookie={!authorization} />}
        {status === "signed-out" && "Not signed in"}
        {status === "unreachable" && "Server not reachable"}
      </span>
      <span className="wordmark">Quarterdeck</span>
    </div>
  );
}

function SignedIn({ user, organization, byCookie }) {
  return (
    <form method="post" action="/sign-out" title={organization.name}>
      {user.name} <small>{organization.name}</small>
      {byCookie && <button>Sign out</button>}
    </form>
  );
}

/** How to sign in, above the editor, shown while the server does not know who is asking. */
export function SignInHint() {
  const { status } = useSyncExternalStore(viewer.listen, viewer.snapshot);
  if (status !== "signed-out") return null;
  return (
    <p className="sign-in-hint" role="alert">
      <strong>You are not signed in.</strong> <a href="/sign-in?next=/graphql">Sign in</a>, open the one-time link that the
      server printed when it started, or put an access token into the Headers of a tab:{" "}
      <code>{'{"Authorization": "Bearer TOKEN"}'}</code>
    </p>
  );
}

/** The `Authorization` among the headers of the open tab. */
function useAuthorization() {
  const { tabs, activeTabIndex } = useGraphiQL(pick("tabs", "activeTabIndex"));
  try {
    return authorizationOf(JSON.parse(tabs[activeTabIndex]?.headers || "{}"));
  } catch {
    return undefined;
  }
}

/** Asks again who we are when that header changes and when the person comes back to the page. */
function useFreshViewer(authorization, status) {
  const schema = useGraphiQL((state) => state.schema);
  const { introspect } = useGraphiQLActions();

  useEffect(() => {
    viewer.load(authorization ? { Authorization: authorization } : {});
  }, [authorization]);

  useEffect(() => {
    const reload = () => viewer.load();
    window.addEventListener("focus", reload);
    return () => window.removeEventListener("focus", reload);
  }, []);

  // The documentation may have been refused to a stranger.
  useEffect(() => {
    if (status === "signed-in" && !schema) introspect();
  }, [status]);
}
