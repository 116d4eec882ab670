// A chart under a pointer or the keyboard: what stands there is told in a tip beside it and to screen readers, and a
// click or Enter asks for the rows behind it.

import { element } from "./dom.js";
import { figure, span } from "./words.js";

const MOST_TOLD = 12;
const GAP_PIXELS = 12;
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

/** Follows pointer and keyboard on `drawing`. `marks()` gives what is drawn now; `open(marks, bucket, value)` lists. */
export function inspect(drawing, marks, open) {
  const band = element("div", { className: "band", hidden: true });
  const dot = element("div", { className: "dot", hidden: true });
  const tip = element("div", { className: "tip", hidden: true, "aria-hidden": "true" });
  const said = element("p", { className: "for-screen-readers", "aria-live": "polite" });
  drawing.append(band, dot, tip, said);
  let chosen;

  function show(found, { aloud = false } = {}) {
    chosen = found;
    band.hidden = dot.hidden = tip.hidden = !found;
    if (!found) return;
    const { bucket, value } = found;
    const shown = marks();
    const place = shown.place(bucket, value);
    const { style } = band;
    [style.left, style.width] = [`${place.left}px`, `${place.width}px`];
    [style.top, style.height] = [`${place.ceiling}px`, `${place.ground - place.ceiling}px`];
    dot.hidden = !shown.isLine;
    [dot.style.left, dot.style.top, dot.style.color] = [`${place.left}px`, `${place.top}px`, shown.colorOf(value)];
    tip.replaceChildren(...told(shown, bucket, value));
    // Beside the marks, towards the middle, and never beyond the chart.
    const isLate = place.left + place.width / 2 > drawing.clientWidth / 2;
    const left = isLate ? place.left - GAP_PIXELS - tip.offsetWidth : place.left + place.width + GAP_PIXELS;
    tip.style.left = `${Math.max(0, Math.min(left, drawing.clientWidth - tip.offsetWidth))}px`;
    if (aloud) said.textContent = inWords(shown, bucket, value);
  }

  drawing.addEventListener("pointermove", (event) => {
    const { left, top } = drawing.getBoundingClientRect();
    show(marks()?.at(event.clientX - left, event.clientY - top));
  });
  drawing.addEventListener("pointerleave", () => show(undefined));
  drawing.addEventListener("blur", () => show(undefined));
  drawing.addEventListener("click", (event) => {
    const { left, top } = drawing.getBoundingClientRect();
    const found = marks()?.at(event.clientX - left, event.clientY - top);
    if (found) open(marks(), found.bucket, found.value);
  });
  drawing.addEventListener("keydown", (event) => {
    const shown = marks();
    if (!shown?.buckets.length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in STEPS) show(step(shown, chosen, STEPS[event.key]), { aloud: true });
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      show(turn(chosen ?? step(shown, undefined, Infinity), event.key === "ArrowUp" ? 1 : -1), { aloud: true });
    } else if ((event.key === "Enter" || event.key === " ") && chosen) open(shown, chosen.bucket, chosen.value);
    else if (event.key === "Escape" && chosen) show(undefined);
    else return;
    event.preventDefault();
  });
  /** To be called when something else is drawn: what was chosen stays so, where it still is. */
  return function renew() {
    const bucket = chosen && marks()?.buckets.find((each) => each.values[0].time === chosen.bucket.values[0].time);
    show(bucket && { bucket, value: ofGroup(bucket, chosen.value.group) });
  };
}

function ofGroup({ values }, group) {
  return values.find((each) => each.group === group) ?? values[0];
}

/** So many buckets further, in the same group where that has a value there. */
function step({ buckets }, chosen, by) {
  const last = buckets.length - 1;
  const from = chosen ? buckets.indexOf(chosen.bucket) : by > 0 ? -1 : last + 1;
  const bucket = buckets[Math.min(Math.max(from + by, 0), last)];
  return { bucket, value: ofGroup(bucket, chosen?.value.group) };
}

/** The next group of the same bucket. */
function turn({ bucket, value }, by) {
  const { length } = bucket.values;
  return { bucket, value: bucket.values[(bucket.values.indexOf(value) + by + length) % length] };
}

function told(marks, bucket, chosen) {
  const rows = [...bucket.values].reverse().slice(0, MOST_TOLD);
  const lines = rows.map((value) => {
    const swatch = element("i");
    swatch.style.color = marks.colorOf(value);
    const name = marks.isColored ? value.group : "";
    const amount = element("b", {}, figure(value.value, marks.meta.unit));
    return element("li", { className: value === chosen ? "chosen" : "" }, swatch, element("span", {}, name), amount);
  });
  const more = bucket.values.length - rows.length;
  if (more > 0) lines.push(element("li", {}, `and ${more} more`));
  return [element("strong", {}, span(...marks.edges(bucket), marks.meta.timezone)), element("ul", {}, ...lines)];
}

function inWords(marks, bucket, value) {
  const name = marks.isColored ? `${value.group}: ` : "";
  const others = bucket.values.length > 1 ? `, one of ${bucket.values.length} here` : "";
  return `${span(...marks.edges(bucket), marks.meta.timezone)}. ${name}${figure(value.value, marks.meta.unit)}${others}.`;
}
