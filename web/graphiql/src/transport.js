import { createClient } from "graphql-ws/client";

const ENDPOINT = new URL("/graphql", location.origin);
const SOCKET = new URL(ENDPOINT);
SOCKET.protocol = ENDPOINT.protocol === "https:" ? "wss:" : "ws:";

/** Longest wait between two attempts to reconnect, in milliseconds, and how often to try before giving up. */
const LONGEST_WAIT = 5_000;
const MOST_ATTEMPTS = 20;

/**
 * Sends a query or mutation and returns the GraphQL result.
 *
 * The session cookie travels because the request is of the same origin; the custom header shows the server that a
 * page of its own sent it, since a form or an image elsewhere cannot.
 */
export async function post(request, headers = {}) {
  const response = await fetch(ENDPOINT, {
    method: "POST",
    credentials: "same-origin",
    headers: {
      "Content-Type": "application/json",
      Accept: "application/graphql-response+json, application/json;q=0.9",
      "X-Quarterdeck-CSRF": "1",
      ...headers,
    },
    body: JSON.stringify(request),
  });
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`The server answered ${response.status} ${response.statusText} and no GraphQL result: ${text}`);
  }
}

/** The codes of a result's errors, for example `["UNAUTHENTICATED"]`. */
export function errorCodes(result) {
  return (result.errors ?? []).map((error) => error.extensions?.code);
}

/** The `Authorization` among headers a person typed, in whatever case. */
export function authorizationOf(headers = {}) {
  const name = Object.keys(headers).find((key) => key.toLowerCase() === "authorization");
  return name && headers[name];
}

/**
 * Subscribes over `graphql-transport-ws` and returns a function that ends the subscription.
 *
 * `observer` has `connected()`, `next(result)`, `interrupted()` (the connection was lost and is being made again),
 * `error(error)` and `complete()`. After a lost connection the operation is sent again with its variable `after` at the
 * last cursor received, so nothing is missed or repeated. An operation that has no such variable or asks for no `cursor`
 * can't continue: its loss is reported as an error.
 */
export function subscribe(request, headers, observer) {
  const authorization = authorizationOf(headers);
  const client = createClient({
    url: SOCKET.href,
    connectionParams: authorization ? { authorization } : undefined,
    retryAttempts: 0,
    on: { connected: () => observer.connected() },
  });
  let resumable = /\$after\b/.test(request.query);
  let { variables } = request;
  let attempts = 0;
  let timer;
  let unsubscribe;
  let ended = false;

  function end() {
    ended = true;
    clearTimeout(timer);
    unsubscribe?.();
    client.dispose();
  }

  function fail(error) {
    if (ended) return;
    end();
    observer.error(error);
  }

  function resumeAfter(cursor) {
    if (cursor) variables = { ...variables, after: cursor };
    else resumable = false;
  }

  function reconnect(error) {
    if (ended) return;
    attempts += 1;
    if (!resumable || attempts > MOST_ATTEMPTS) return fail(error);
    observer.interrupted();
    timer = setTimeout(connect, Math.min(250 * 2 ** (attempts - 1), LONGEST_WAIT));
  }

  function connect() {
    unsubscribe = client.subscribe(
      { ...request, variables },
      {
        next(result) {
          attempts = 0;
          if (result.data) resumeAfter(cursorOf(result));
          observer.next(result);
        },
        error(error) {
          if (isLostConnection(error)) reconnect(new Error(closeReason(error)));
          else fail(error instanceof Event ? new Error(closeReason(error)) : error);
        },
        complete() {
          if (ended) return;
          end();
          observer.complete();
        },
      },
    );
  }

  connect();
  return end;
}

/** The `cursor` of an event: a member of the payload of the operation's one root field. */
function cursorOf(result) {
  return Object.values(result.data ?? {})[0]?.cursor;
}

/** Whether trying again can help. Codes 4400 to 4499 are the server's refusals (bad request, not signed in, …). */
function isLostConnection(error) {
  return error instanceof CloseEvent ? error.code < 4400 || error.code > 4499 : error instanceof Event;
}

function closeReason(error) {
  if (!(error instanceof CloseEvent)) return "The connection to the server failed.";
  return `The server closed the connection: ${error.reason || "no reason given"} (code ${error.code}).`;
}
