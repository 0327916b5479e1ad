// Bundles the extension into one script that JupyterLab loads, and writes the description by which its server finds it.
//
// JupyterLab loads extensions by module federation: a script registers a container, which JupyterLab gives the modules
// that it shares (`init`) and asks for the extension (`get`). The container here is ten lines instead of a bundler's
// runtime: nothing is shared with other extensions, and two modules of JupyterLab's are used.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const SHARED = ["@jupyterlab/completer", "@jupyterlab/notebook", "@jupyterlab/services", "@jupyterlab/coreutils"];
const { name, version, description, license } = JSON.parse(await readFile("package.json", "utf8"));

const container = (code) => `"use strict";
(() => {
  let scope;
  const shared = async (name) => {
    const [found] = Object.values(scope[name] ?? {});
    if (!found) throw new Error(\`${name}: this JupyterLab shares no \${name}\`);
    return (await found.get())();
  };
  const init = (offered) => void (scope = offered);
  const get = async () => {
    const names = ${JSON.stringify(SHARED)};
    const modules = new Map(await Promise.all(names.map(async (each) => [each, await shared(each)])));
    const require = (each) => modules.get(each);
    const module = { exports: {} };
    ${code}
    return () => module.exports;
  };
  (window._JUPYTERLAB ??= {})[${JSON.stringify(name)}] = { init, get };
})();
`;

const built = await build({
  entryPoints: ["src/extension.ts"],
  bundle: true,
  write: false,
  format: "cjs",
  target: "es2022",
  external: SHARED,
  logLevel: "warning",
});
const folder = new URL("../out/labextension/", import.meta.url);
await mkdir(new URL("static/", folder), { recursive: true });
await writeFile(new URL("static/remoteEntry.js", folder), container(built.outputFiles[0].text));
const _build = { load: "static/remoteEntry.js", extension: "./extension" };
const described = { name, version, description, license, jupyterlab: { extension: true, _build } };
await writeFile(new URL("package.json", folder), JSON.stringify(described, null, 2));
