// Writes dist/peft-daemon-VERSION.vsix, with the Python package that `make vsix` has put into out/wheel. Refuses one
// without it, or one that is too large: then something went in by mistake.
import { mkdir, readdir, readFile, stat } from "node:fs/promises";
import { createVSIX } from "@vscode/vsce";

const MOST_BYTES_BESIDE_WHEEL = 500_000;

const { version } = JSON.parse(await readFile("package.json", "utf8"));
const wheel = `peft_daemon-${version}-py3-none-any.whl`;
const packed = (await readdir("out/wheel").catch(() => [])).sort();
if (packed.join(" ") !== `constraints.txt ${wheel}`) {
  throw new Error(`out/wheel must hold ${wheel} and constraints.txt, and holds [${packed.join(" ")}]: run make vsix`);
}
const packagePath = `dist/peft-daemon-${version}.vsix`;
await mkdir("dist", { recursive: true });
await createVSIX({ packagePath, dependencies: false, allowMissingRepository: true });
const { size } = await stat(packagePath);
const most = (await stat(`out/wheel/${wheel}`)).size + MOST_BYTES_BESIDE_WHEEL;
if (size > most) {
  throw new Error(`${packagePath} has ${size} bytes, more than ${most}: look at .vscodeignore and the imports`);
}
console.log(`${packagePath}: ${(size / 1e6).toFixed(1)} MB`);
