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
  base: "/static/dashboard/",
  logLevel: "warn",
  plugins: [buildManifest()],
  resolve: {
    alias: [{ find: /^vega$/, replacement: here("src/vega.js") }],
  },
  build: {
    outDir: here("../../app/static/dashboard"),
    emptyOutDir: true,
    target: "es2022",
    // A content security policy without data: URLs for scripts and styles.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    chunkSizeWarningLimit: 1024,
  },
});
