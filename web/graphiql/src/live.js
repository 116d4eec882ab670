import { subscribe } from "./transport.js";

/** Events kept on screen; older ones are dropped. The session's log keeps them all. */
const MOST_EVENTS = 1_000;

const NOTHING = { status: "idle", operation: null, events: [], dropped: 0, error: null };

/**
 * The page's one running subscription and the events it brought.
 *
 * It lives beside GraphiQL's own execution, which knows one operation at a time: here a person can send a message in
 * one tab while the stream opened in another goes on.
 */
class Live {
  #state = NOTHING;
  #listeners = new Set();
  #end = () => {};

  /** For React's `useSyncExternalStore`. */
  snapshot = () => this.#state;
  listen = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Starts a subscription in the place of a running one; resolves with its first result, rejects if there is none. */
  start(request, headers) {
    this.#end();
    let number = 0;
    this.#set({ ...NOTHING, status: "connecting", operation: request.operationName ?? "subscription" });
    return new Promise((resolve, reject) => {
      this.#end = subscribe(request, headers, {
        connected: () => this.#set({ status: "live" }),
        next: (result) => {
          number += 1;
          const { events, dropped } = this.#state;
          const kept = [...events, { number, result }];
          const surplus = Math.max(kept.length - MOST_EVENTS, 0);
          this.#set({ events: kept.slice(surplus), dropped: dropped + surplus });
          resolve(result);
        },
        interrupted: () => this.#set({ status: "reconnecting" }),
        error: (error) => {
          this.#set({ status: "failed", error: describe(error) });
          reject(error);
        },
        complete: () => {
          this.#set({ status: "ended" });
          resolve({ data: null });
        },
      });
    });
  }

  stop = () => {
    this.#end();
    this.#set({ status: "stopped" });
  };

  close = () => {
    this.#end();
    this.#set(NOTHING);
  };

  #set(change) {
    this.#state = { ...this.#state, ...change };
    for (const listener of this.#listeners) listener();
  }
}

/** What to tell a person about an error: GraphQL errors come as a list, everything else as an `Error`. */
export function describe(error) {
  return Array.isArray(error) ? error.map((one) => one.message).join(" ") : error.message;
}

export const live = new Live();
