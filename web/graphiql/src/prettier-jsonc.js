import { applyEdits, format } from "jsonc-parser";

/**
 * A Prettier plugin that lays out JSON with comments. GraphiQL formats its variables and headers with Prettier's
 * JavaScript parser and printer; this takes their place and saves half a megabyte.
 */
export const parsers = {
  jsonc: {
    parse: (text) => ({ text }),
    astFormat: "jsonc-text",
    locStart: () => 0,
    locEnd: ({ text }) => text.length,
  },
};

export const printers = {
  "jsonc-text": {
    print({ node: { text } }) {
      return applyEdits(text, format(text, undefined, { tabSize: 2, insertSpaces: true }));
    },
  },
};
