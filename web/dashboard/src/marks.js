// What stands in a chart: the marks by the place that a pointer is at, and one after the other by the keyboard.

const LINE = "line";
/** How far beside a column a pointer may be: where time is little, columns are thin. */
const REACH_PIXELS = 5;

export class Marks {
  /** `spec` as the graph gave it, `view` as it was drawn. */
  constructor(spec, view) {
    this.title = spec.title.text;
    this.meta = spec.usermeta.quarterdeck;
    this.view = view;
    const { mark, data, encoding } = spec.layer?.[0] ?? spec;
    this.isLine = mark.type === LINE;
    this.isColored = Boolean(encoding.color);
    this.color = spec.config.mark.color;
    this.names = this.meta.groups.map((group) => group.name);
    const buckets = new Map();
    for (const value of data.values) {
      if (value.value === null || value.bucket === undefined) continue;
      if (!buckets.has(value.bucket)) buckets.set(value.bucket, { number: value.bucket, values: [] });
      buckets.get(value.bucket).values.push(value);
    }
    /** Those that have anything, by time; each with its `values`. */
    this.buckets = [...buckets.values()].sort((a, b) => a.number - b.number);
  }

  /** The bucket and the value at a point of the drawing, in pixels from its corner; undefined where there is none. */
  at(x, y) {
    const [left, top] = this.#origin();
    const time = Number(this.view.scale("x").invert(x - left));
    const bucket = this.#nearest(time);
    if (!bucket || (!this.isLine && this.#beside(bucket, x) > REACH_PIXELS)) return undefined;
    const level = this.view.scale("y").invert(y - top);
    const distance = (value) =>
      this.isLine ? Math.abs(value.value - level) : Math.max(value.lower - level, level - value.upper);
    const value = bucket.values.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    return { bucket, value };
  }

  /** Where a bucket's marks are: `left` and `width` in pixels, and `top`, that of one value. */
  place(bucket, value) {
    const [left, top] = this.#origin();
    const x = this.view.scale("x");
    const y = this.view.scale("y");
    const [{ time, end }] = bucket.values;
    const start = x(Date.parse(time));
    return {
      left: left + start,
      width: end ? x(Date.parse(end)) - start : 0,
      top: top + y(value.upper ?? value.value),
      ground: top + this.view.height(),
      ceiling: top,
    };
  }

  /** The group of a value: its name, total, and the filter that lists it. */
  group(value) {
    return this.meta.groups[this.names.indexOf(value.group)];
  }

  colorOf(value) {
    return this.isColored ? this.view.scale("color")(value.group) : this.color;
  }

  /** Begin and end of a bucket, as moments. */
  edges(bucket) {
    return [this.meta.edges[bucket.number], this.meta.edges[bucket.number + 1]];
  }

  #origin() {
    const [x, y] = this.view.origin();
    const { left, top } = this.view.padding();
    return [left + x, top + y];
  }

  #nearest(time) {
    const distance = ({ values: [{ time: start, end = start }] }) =>
      Math.max(Date.parse(start) - time, time - Date.parse(end), 0);
    return this.buckets.reduce((a, b) => (a && distance(a) <= distance(b) ? a : b), undefined);
  }

  /** How many pixels a place is beside a bucket's column. */
  #beside(bucket, x) {
    const { left, width } = this.place(bucket, bucket.values[0]);
    return Math.max(left - x, x - left - width, 0);
  }
}
