// One chart of a metric: its heading and total, what it is grouped by, the drawing, and the same as a table.

import { element } from "./dom.js";
import { ask } from "./graph.js";
import { inspect } from "./inspect.js";
import { Marks } from "./marks.js";
import { showRows } from "./rows.js";
import { tableOf } from "./table.js";
import { figure, plain, span } from "./words.js";
import CHART from "./chart.graphql?raw";

/** Most of the page's weight: fetched while the graph is asked, and nothing else waits for it. */
const drawing = import("./drawing.js");
const ADDED_UP = new Set(["COUNT", "SUM"]);
/** So wide that a column can be seen and pointed at; what is not here is as wide as the graph chooses. */
const BUCKETS = { LAST_24_HOURS: "HOUR", LAST_7_DAYS: "HOUR", LAST_30_DAYS: "DAY", LAST_90_DAYS: "DAY" };

export class Panel {
  /** `metric` by its name, grouped by `by` (or ""); `regrouped(by)` is called when somebody chooses another group. */
  constructor(metric, by, regrouped) {
    this.metric = metric;
    this.by = by;
    this.asking = new AbortController();
    const id = metric.replaceAll(".", "-");
    this.heading = element("h2", { id });
    this.total = element("output", { className: "total" });
    this.choice = element("select", { disabled: true });
    this.choice.addEventListener("change", () => {
      this.by = this.choice.value;
      regrouped(this.by);
    });
    this.room = element("div", { className: "room", "aria-hidden": "true" });
    this.drawing = element(
      "div",
      { className: "drawing", tabIndex: 0, role: "application", "aria-roledescription": "chart", "aria-labelledby": id },
      this.room,
    );
    this.trouble = element("p", { className: "trouble", role: "alert", hidden: true });
    this.drawing.append(this.trouble);
    this.renew = inspect(this.drawing, () => this.marks, open);
    this.table = element("details", {}, element("summary", {}, "As a table"));
    this.table.addEventListener("toggle", () => this.#tabulate());
    const label = element("label", {}, "by ", this.choice);
    const caption = element("figcaption", {}, this.heading, this.total, label);
    this.element = element("figure", { "data-metric": metric }, caption, this.drawing, this.table);
    new ResizeObserver(() => this.#place()).observe(this.drawing);
  }

  /** Its title, and what it can be grouped by. */
  offer({ title, dimensions }) {
    this.heading.textContent = title;
    // By session there is a group for each: that is a list, and no chart.
    const names = dimensions.filter((name) => name !== "session");
    const options = names.map((name) => element("option", { value: name }, plain(name)));
    this.choice.replaceChildren(element("option", { value: "" }, "nothing"), ...options);
    this.choice.value = this.by;
    this.choice.disabled = false;
  }

  /** Asks the graph and draws what it says; what it refuses stands in the chart's place. */
  async load(range, timezone) {
    this.asking.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    const asked = { metric: this.metric, groupBy: this.by ? [this.by] : [], range, bucket: BUCKETS[range], timezone };
    this.element.ariaBusy = "true";
    try {
      const { metricChart } = await ask(CHART, asked, signal);
      if (signal.aborted) return;
      this.shown = JSON.stringify(asked);
      this.spec = metricChart;
      this.heading.textContent = metricChart.title.text;
      this.drawing.setAttribute("aria-description", described(metricChart));
      this.total.textContent = totalOf(metricChart.usermeta.quarterdeck);
      await this.#draw();
      this.#say(this.marks.buckets.length ? "" : "Nothing in this range.");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (this.shown !== JSON.stringify(asked)) this.#clear(); // it is the answer to something else
      this.#say(error.message, error.signedOut);
    }
    this.element.ariaBusy = "false";
  }

  /** Drawn again where its place has got another width. */
  #place() {
    const { clientWidth } = this.drawing;
    if (!this.spec || clientWidth === this.width) return;
    this.#draw().catch((error) => this.#say(error.message));
  }

  async #draw() {
    const { spec } = this;
    this.width = this.drawing.clientWidth;
    const { draw } = await drawing;
    const { view, place } = await draw(spec, this.width, this.drawing.clientHeight);
    if (spec !== this.spec) return view.finalize();
    this.view?.finalize();
    this.view = view;
    this.room.replaceChildren(place);
    this.marks = new Marks(spec, view);
    this.renew();
    this.#tabulate();
  }

  #clear() {
    this.view?.finalize();
    this.spec = this.view = this.marks = undefined;
    this.total.textContent = "";
    this.room.replaceChildren();
    this.renew();
    this.#tabulate();
  }

  #tabulate() {
    this.table.querySelector(".scrolled")?.remove();
    if (!this.table.open || !this.marks) return;
    this.table.append(element("div", { className: "scrolled", tabIndex: 0 }, tableOf(this.marks, open)));
  }

  #say(text, isSignedOut = false) {
    this.trouble.replaceChildren(text);
    this.trouble.hidden = !text;
    if (isSignedOut) this.trouble.append(" ", element("a", { href: "/sign-in?next=%2Fdashboard" }, "Sign in"));
  }
}

function open(marks, bucket, value) {
  const { fact, timezone } = marks.meta;
  const [from, to] = marks.edges(bucket);
  const { filter } = marks.group(value);
  const name = marks.isColored && filter ? `${value.group}, ` : "";
  // No filter finds the rest of the groups: then it is everything of that time.
  const note = filter ? "" : `"${value.group}" are listed together with the named ones. `;
  const asked = { fact, from, to, filter: filter ?? marks.meta.filter ?? [] };
  showRows(`${marks.title}: ${name}${span(from, to, timezone)}`, note, timezone, asked);
}

function described(spec) {
  return `${spec.description} Arrow keys go from one time and group to the next, and Enter lists the rows behind.`;
}

/** The whole range's figure; nothing where parts do not make one. */
function totalOf({ groups, kind, unit }) {
  if (groups.length === 1) return figure(groups[0].total, unit);
  if (!groups.length || !ADDED_UP.has(kind)) return "";
  return figure(groups.reduce((sum, group) => sum + (group.total ?? 0), 0), unit);
}
