import VIEWER from "./viewer.graphql?raw";
import { errorCodes, post } from "./transport.js";

const UNKNOWN = { status: "unknown", viewer: null, problem: null };

/** Who the server takes this page for, by its cookie or by the headers of the open tab. */
class Viewer {
  #state = UNKNOWN;
  #headers = {};
  #listeners = new Set();

  snapshot = () => this.#state;
  listen = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Asks the server, with the headers a person typed or else those of the last call. */
  async load(headers = this.#headers) {
    this.#headers = headers;
    let next;
    try {
      const result = await post({ query: VIEWER }, headers);
      if (errorCodes(result).includes("UNAUTHENTICATED")) next = { status: "signed-out" };
      else if (result.data?.viewer) next = { status: "signed-in", viewer: result.data.viewer };
      else next = { status: "unreachable", problem: result.errors?.[0]?.message ?? "The answer was empty." };
    } catch (error) {
      next = { status: "unreachable", problem: error.message };
    }
    if (headers === this.#headers) this.set(next);
  }

  set(next) {
    this.#state = { ...UNKNOWN, ...next };
    for (const listener of this.#listeners) listener();
  }
}

export const viewer = new Viewer();

/** An operation was refused for want of a sign-in: the cookie may have ended since the page was opened. */
export function noticeRefusal() {
  viewer.set({ status: "signed-out" });
}
