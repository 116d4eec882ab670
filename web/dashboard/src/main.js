// The usual figures: charts that the graph specifies, and figures of now. What is chosen stands in the address.

import { ask } from "./graph.js";
import { showNow } from "./now.js";
import { Panel } from "./panel.js";
import METRICS from "./metrics.graphql?raw";

/** Metrics, and what they are grouped by at first. */
const CHARTS = {
  "runs.count": "outcome",
  "tools.calls": "tool",
  "tools.duration_p95": "",
  "runs.error_rate": "",
  "tokens.total": "model",
  "cost.usd": "",
};
const REFRESH_MS = 60_000;

const address = new URL(location.href);
const range = document.querySelector("#range");
const timezone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

const panels = Object.entries(CHARTS).map(([metric, usual]) => {
  const panel = new Panel(metric, address.searchParams.get(metric) ?? usual, (by) => {
    remember(metric, by);
    load(panel);
  });
  return panel;
});

function chosenRange() {
  return range.querySelector(":checked").value;
}

function load(panel) {
  return panel.load(chosenRange(), timezone);
}

function loadAll() {
  for (const panel of panels) load(panel);
}

function remember(name, value) {
  address.searchParams.set(name, value);
  history.replaceState(null, "", address);
}

/** What the graph knows of the metrics. */
async function introduce() {
  try {
    const { metrics } = await ask(METRICS);
    for (const panel of panels) panel.offer(metrics.find((each) => each.name === panel.metric));
  } catch {
    // The charts say what is wrong; without the names they keep what they have.
  }
}

const chosen = [...range.elements].find((each) => each.value && each.value === address.searchParams.get("range"));
if (chosen) chosen.checked = true;
document.querySelector("#zone").textContent = `Times in ${timezone.replaceAll("_", " ")}`;
document.querySelector("#charts").append(...panels.map((panel) => panel.element));
range.addEventListener("change", () => {
  remember("range", chosenRange());
  loadAll();
});
// Nobody sees the charts of a hidden page; they are brought up to date when it is shown again.
setInterval(() => document.hidden || loadAll(), REFRESH_MS);
document.addEventListener("visibilitychange", () => document.hidden || loadAll());
loadAll();
introduce();
showNow();
