import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** What goes into a build beside the installed packages, which the lock file names with their checksums. */
const INPUTS = ["package.json", "package-lock.json", "vite.config.mjs", "index.html"];

const digest = (content) => createHash("sha256").update(content).digest("hex");

/**
 * Writes build.json: sha256 of every source file and of every built file. A test compares both with what is committed,
 * so a change of the source without a build, or of the output by hand, is noticed without Node.
 */
function buildManifest() {
  return {
    name: "quarterdeck-build-manifest",
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        const sources = readdirSync(here("src"), { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => `${entry.parentPath}/${entry.name}`.slice(here(".").length));
        const digests = (names, read) => Object.fromEntries(names.sort().map((name) => [name, digest(read(name))]));
        const manifest = {
          sources: digests([...INPUTS, ...sources], (name) => readFileSync(here(name))),
          outputs: digests(Object.keys(bundle), (name) => bundle[name].code ?? bundle[name].source),
        };
        this.emitFile({ type: "asset", fileName: "build.json", source: `${JSON.stringify(manifest, null, 2)}\n` });
      },
    },
  };
}

export default defineConfig({
  base: "/static/graphiql/",
  logLevel: "warn",
  plugins: [buildManifest()],
  oxc: { jsx: { runtime: "automatic" } },
  resolve: {
    alias: [
      { find: /^monaco-graphql\/esm\/monaco-editor\.js$/, replacement: here("src/monaco.js") },
      { find: /^\.\/monaco-editor$/, replacement: here("src/monaco.js") },
      { find: /^.*\/(multiDiffEditorWidget|diffEditorWidget)\.js$/, replacement: here("src/monaco-without-diff.js") },
      { find: /^prettier\/(plugins\/estree|parser-babel)$/, replacement: here("src/prettier-jsonc.js") },
      { find: /^prettier\/parser-graphql$/, replacement: "prettier/plugins/graphql" },
    ],
  },
  worker: { format: "es" },
  build: {
    outDir: here("../../app/static/graphiql"),
    emptyOutDir: true,
    target: "es2022",
    // A content security policy without data: URLs for scripts and styles.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    chunkSizeWarningLimit: 4096,
    rolldownOptions: {
      onwarn(warning, warn) {
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") warn(warning);
      },
    },
  },
});
