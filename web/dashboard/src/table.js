// A chart as a table: a line for each time, the latest first, and a column for each group. Each figure leads to the rows behind it.

import { element } from "./dom.js";
import { figure, span } from "./words.js";

export function tableOf(marks, open) {
  const { names, meta, buckets } = marks;
  const heads = (marks.isColored ? names : ["value"]).map((name) =>
    element("th", { scope: "col", className: "number" }, name),
  );
  const lines = [...buckets].reverse().map((bucket) => {
    const values = new Map(bucket.values.map((value) => [value.group, value]));
    const cells = names.map((name) => {
      const value = values.get(name);
      if (!value) return element("td", { className: "number" }, "");
      const button = element("button", { type: "button" }, figure(value.value, meta.unit));
      button.addEventListener("click", () => open(marks, bucket, value));
      return element("td", { className: "number" }, button);
    });
    return element("tr", {}, element("th", { scope: "row" }, span(...marks.edges(bucket), meta.timezone)), ...cells);
  });
  const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Time"), ...heads));
  return element("table", {}, head, element("tbody", {}, ...lines));
}
