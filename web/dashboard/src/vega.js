// Vega as far as charts of metrics need it: no maps, forces, trees, word clouds, regressions. The page may not evaluate
// text as code (its policy has no 'unsafe-eval'), so expressions are parsed and interpreted.

import { transforms } from "vega-dataflow";
import * as encode from "vega-encode";
import { expressionInterpreter } from "vega-interpreter";
import { parse } from "vega-parser";
import * as basic from "vega-transforms";
import { Warn, extend } from "vega-util";
import { View } from "vega-view";
import * as views from "vega-view-transforms";

// What Vega-Lite takes from `vega`, which is this file for it.
export { hasOwnProperty, isObject, isString, stringValue } from "vega-util";

extend(transforms, basic, encode, views);

/** A Vega specification drawn as SVG into an element. */
export async function drawn(spec, container) {
  const runtime = parse(spec, null, { ast: true });
  const nothing = () => {};
  const options = { renderer: "svg", expr: expressionInterpreter, logLevel: Warn, container, tooltip: nothing };
  return new View(runtime, options).runAsync();
}
