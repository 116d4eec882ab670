// Figures of now, told once a second.

import { element } from "./dom.js";
import { follow } from "./graph.js";
import { figure } from "./words.js";
import NOW from "./now.graphql?raw";

const AGAIN_MS = 3_000;
const TITLES = {
  "sessions.active": "Active sessions",
  "runs.running": "Runs under way",
  "queue.depth": "Queue",
  "tokens.per_second": "Tokens a second",
  "tools.duration_p95": "Tool calls, 95 %",
  "runs.error_rate": "Failed runs",
  "cost.per_hour": "Cost an hour",
};

const state = document.querySelector("#state");
// They have their places before anything is known, so that nothing moves.
const figures = new Map(
  Object.entries(TITLES).map(([metric, title]) => {
    const value = element("dd", { "data-metric": metric }, "–");
    document.querySelector("#now").append(element("div", {}, element("dt", {}, title), value));
    return [metric, value];
  }),
);

/** Shows the figures for as long as the page is open; a lost connection is made again. */
export async function showNow() {
  for (;;) {
    try {
      await follow(NOW, ({ metricsLive }) => tell(metricsLive));
      state.textContent = "The connection has ended; trying again …";
    } catch (error) {
      state.textContent = error.message;
      if (error.signedOut) return;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function tell({ at, values }) {
  for (const { metric, unit, value } of values) {
    const place = figures.get(metric);
    if (place) place.textContent = figure(value, unit);
  }
  state.textContent = `As of ${new Date(at).toLocaleTimeString("en-GB")}`;
}
