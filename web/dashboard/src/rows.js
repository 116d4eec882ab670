// The facts behind a value, in a dialog.

import { element } from "./dom.js";
import { ask } from "./graph.js";
import { figure, moment, plain } from "./words.js";
import ROWS from "./rows.graphql?raw";

const dialog = document.querySelector("#rows");
const said = document.querySelector("#rows-said");
const table = document.querySelector("#rows-table");
const more = document.querySelector("#rows-more");
let nodes = [];
let controller = new AbortController();

/** Shows the facts that `asked` (of `metricRows`) finds, under a heading and a note. */
export function showRows(heading, note, timezone, asked) {
  dialog.querySelector("h2").textContent = heading;
  nodes = [];
  table.replaceChildren();
  more.hidden = true;
  if (!dialog.open) dialog.showModal();
  controller.abort();
  controller = new AbortController();
  const { signal } = controller;
  more.onclick = () => load(note, timezone, asked, more.dataset.after, signal);
  load(note, timezone, asked, undefined, signal);
}

dialog.addEventListener("close", () => controller.abort());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // its ground, since what is in it fills it
});

async function load(note, timezone, asked, after, signal) {
  said.textContent = "Loading …";
  more.disabled = true;
  try {
    const { metricRows } = await ask(ROWS, { ...asked, after }, signal);
    nodes.push(...metricRows.nodes);
    const { hasNextPage, endCursor } = metricRows.pageInfo;
    const count = metricRows.totalCount;
    said.textContent = count
      ? `${note}${nodes.length < count ? `${nodes.length.toLocaleString("en-GB")} of ` : ""}${rows(count)}, the latest first.`
      : "Nothing to list: what is behind it is not kept any more, or is of sessions that you may not see.";
    table.replaceChildren(...(nodes.length ? [tableOf(timezone, asked.filter)] : []));
    more.hidden = !hasNextPage;
    more.dataset.after = endCursor ?? "";
  } catch (error) {
    if (error.name !== "AbortError") said.textContent = error.message;
  } finally {
    more.disabled = false;
  }
}

function rows(count) {
  return count === 1 ? "1 row" : `${count.toLocaleString("en-GB")} rows`;
}

/** A column for each label and measure that any of them has; the heading says what all have in common. */
function tableOf(timezone, filter) {
  const said = new Set(["session", ...filter.map((each) => each.dimension)]);
  const labels = named(nodes.flatMap((node) => node.labels.filter((each) => each.value !== null)), "dimension")
    .filter((name) => !said.has(name))
    .sort((a, b) => (a === "source") - (b === "source"));
  const measures = named(nodes.flatMap((node) => node.measures), "name");
  const head = [
    element("th", { scope: "col" }, "Time"),
    ...labels.map((name) => element("th", { scope: "col" }, plain(name))),
    ...measures.map((name) => element("th", { scope: "col", className: "number" }, plain(name.replace(/_ms$/, "")))),
    element("th", { scope: "col" }, "session"),
  ];
  const lines = nodes.map((node) => {
    const label = new Map(node.labels.map((each) => [each.dimension, each.name ?? each.value]));
    const measure = new Map(node.measures.map((each) => [each.name, each.value]));
    return element(
      "tr",
      {},
      element("td", {}, element("time", { dateTime: node.at }, moment(node.at, timezone))),
      ...labels.map((name) => element("td", {}, label.get(name) ?? "")),
      ...measures.map((name) => element("td", { className: "number" }, figure(measure.get(name), unitOf(name)))),
      element("td", { title: node.session?.id ?? "" }, node.session?.title || node.session?.id || "from outside"),
    );
  });
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
}

function named(found, key) {
  return [...new Set(found.map((each) => each[key]))];
}

function unitOf(measure) {
  return measure.endsWith("_ms") ? "ms" : measure.endsWith("_usd") ? "USD" : measure.endsWith("_bytes") ? "By" : "";
}
