// Bundles the extension into one file; `vscode` is the editor's own module.
import { build } from "esbuild";

await build({
  entryPoints: ["src/extension.ts"],
  outfile: "out/extension.js",
  bundle: true,
  minify: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  external: ["vscode"],
  // The protocol library's first choice is a module format that cannot be bundled.
  mainFields: ["module", "main"],
  logLevel: "warning",
});
