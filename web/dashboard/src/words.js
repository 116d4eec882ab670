// Figures and times as people read them.

const NUMBER = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 2 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const PERCENT = new Intl.NumberFormat("en-GB", { style: "percent", maximumFractionDigits: 1 });
const CENTS = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const PARTS_OF_A_CENT = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 3 });
const HOURS = 3_600_000;

/** A figure of a metric in its unit; "–" where there is none. */
export function figure(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "1") return PERCENT.format(value);
  if (unit === "ms") return duration(value);
  if (unit.startsWith("USD")) return `$${(value && value < 0.1 ? PARTS_OF_A_CENT : CENTS).format(value)}`;
  const digits = value < 1e6 ? NUMBER.format(value) : COMPACT.format(value);
  return unit === "By" ? `${COMPACT.format(value)}B` : unit === "s" ? `${digits} s` : digits;
}

function duration(ms) {
  if (ms < 1_000) return `${NUMBER.format(ms < 10 ? ms : Math.round(ms))} ms`;
  const seconds = ms / 1_000;
  if (seconds < 60) return `${NUMBER.format(Number(seconds.toPrecision(3)))} s`;
  const whole = Math.round(seconds);
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`;
}

/** A span of time in a zone: a day by its date, several by the first and the last, and shorter ones by their times. */
export function span(from, to, timeZone) {
  const [start, end] = [new Date(from), new Date(to)];
  const day = (at) => at.toLocaleDateString("en-GB", { timeZone, weekday: "short", day: "numeric", month: "short" });
  const time = (at) => at.toLocaleTimeString("en-GB", { timeZone, hour: "2-digit", minute: "2-digit" });
  if (end - start < 23 * HOURS) return `${day(start)}, ${time(start)}–${time(end)}`;
  const last = day(new Date(end - 1));
  return last === day(start) ? last : `${day(start)} – ${last}`;
}

/** A moment to the second. */
export function moment(at, timeZone) {
  return new Date(at).toLocaleString("en-GB", { timeZone, dateStyle: "medium", timeStyle: "medium" });
}

/** A name of the graph, such as `template_version`. */
export function plain(name) {
  return name.replaceAll("_", " ");
}
