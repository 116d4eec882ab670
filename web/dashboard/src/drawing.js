// Charts as the graph specifies them, in the page's looks and at their place's size.

import { mergeConfig } from "vega-util";
import { compile } from "vega-lite";

import { element } from "./dom.js";
import { drawn } from "./vega.js";

const LEGEND_ENTRY_PIXELS = 168;
// Colours of text and lines are the style sheet's: light, dark and print differ without another drawing.
const LOOKS = {
  aria: false,
  font: "system-ui, sans-serif",
  axis: {
    labelColor: "currentColor",
    labelFontSize: 11,
    gridColor: "var(--hair)",
    tickColor: "var(--hair)",
    labelPadding: 4,
  },
  legend: { orient: "bottom", labelColor: "currentColor", labelFontSize: 11, symbolSize: 90, rowPadding: 3, offset: 8 },
  rect: { stroke: "var(--sheet)" },
  style: { before: { stroke: "var(--quiet)" } },
};

/**
 * Draws a specification. Returns its Vega view and the element that it is in, which belongs nowhere yet: it takes the
 * old one's place once it is whole, so nothing flickers or moves.
 */
export async function draw(spec, width, height) {
  const { title, usermeta, ...rest } = spec;
  const columns = Math.max(1, Math.floor(width / LEGEND_ENTRY_PIXELS));
  const placed = {
    ...rest,
    width,
    height,
    background: "transparent",
    padding: { left: 0, top: 6, right: 10, bottom: 0 },
    autosize: { type: "fit", contains: "padding" },
    config: mergeConfig({}, spec.config, LOOKS, { legend: { columns } }),
  };
  const place = element("div");
  return { place, view: await drawn(compile(placed).spec, place) };
}
