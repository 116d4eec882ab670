// The usual figures: charts that the server draws, and figures of now that it tells once a second.

const CHARTS = [
  { metric: "runs.count", title: "Runs", groupBy: "outcome" },
  { metric: "tools.calls", title: "Tool calls", groupBy: "tool" },
  { metric: "tools.duration_p95", title: "Duration of tool calls, 95 %" },
  { metric: "runs.error_rate", title: "Share of failed runs" },
  { metric: "tokens.total", title: "Tokens", groupBy: "model" },
  { metric: "cost.usd", title: "Cost" },
];
const TITLES = {
  "sessions.active": "Active sessions",
  "runs.running": "Runs under way",
  "queue.depth": "Queue",
  "tokens.per_second": "Tokens a second",
  "tools.duration_p95": "Tool calls, 95 %",
  "runs.error_rate": "Failed runs",
  "cost.per_hour": "Cost an hour",
};
const REDRAW_MS = 60_000;
const AGAIN_MS = 3_000;
const LIVE = "subscription { metricsLive(every: 1) { at values { metric unit value } } }";

const range = document.querySelector("#range");
const charts = document.querySelector("#charts");
const now = document.querySelector("#now");
const state = document.querySelector("#state");

function draw() {
  const timezone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  charts.replaceChildren(...CHARTS.map(({ title, ...asked }) => {
    const figure = document.createElement("figure");
    const image = document.createElement("img");
    // The time makes it another address, which no cache knows.
    image.src = `/dashboard/chart.svg?${new URLSearchParams({ ...asked, range: range.value, timezone, at: Date.now() })}`;
    image.alt = `${title}: the chart could not be drawn.`;
    image.addEventListener("load", () => { image.alt = `${title}, ${range.selectedOptions[0].text.toLowerCase()}`; });
    figure.append(image);
    return figure;
  }));
}

function shown(value, unit) {
  if (value === null) return "–";
  if (unit === "1") return `${(100 * value).toFixed(1)} %`;
  if (unit === "ms") return value < 1000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
  const digits = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 }).format(value);
  return unit.startsWith("USD") ? `$ ${digits}` : digits;
}

function tell({ at, values }) {
  now.replaceChildren(...values.map(({ metric, unit, value }) => {
    const tile = document.createElement("div");
    const name = document.createElement("dt");
    const figure = document.createElement("dd");
    name.textContent = TITLES[metric] ?? metric;
    figure.textContent = shown(value, unit);
    figure.dataset.metric = metric;
    tile.append(name, figure);
    return tile;
  }));
  state.textContent = `As of ${new Date(at).toLocaleTimeString()}`;
}

async function follow() {
  const response = await fetch("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream", "x-quarterdeck-csrf": "1" },
    body: JSON.stringify({ query: LIVE }),
  });
  if (!response.ok) throw new Error(`The server answers ${response.status}.`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:") || line.length < 8) continue;
      const { data, errors } = JSON.parse(line.slice(5));
      if (errors) throw new Error(errors[0].message);
      if (data) tell(data.metricsLive);
    }
  }
}

async function keepFollowing() {
  for (;;) {
    try {
      await follow();
      state.textContent = "The connection has ended; trying again …";
    } catch (error) {
      state.textContent = `${error.message} Trying again …`;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

range.addEventListener("change", draw);
setInterval(draw, REDRAW_MS);
draw();
keepFollowing();
