// Writes dist/peft-daemon-VERSION.vsix and refuses one that is too large: then something went in by mistake.
import { mkdir, readFile, stat } from "node:fs/promises";
import { createVSIX } from "@vscode/vsce";

const MOST_BYTES = 500_000;

const { version } = JSON.parse(await readFile("package.json", "utf8"));
const packagePath = `dist/peft-daemon-${version}.vsix`;
await mkdir("dist", { recursive: true });
await createVSIX({ packagePath, dependencies: false, allowMissingRepository: true });
const { size } = await stat(packagePath);
if (size > MOST_BYTES) {
  throw new Error(`${packagePath} has ${size} bytes, more than ${MOST_BYTES}: look at .vscodeignore and the imports`);
}
console.log(`${packagePath}: ${Math.round(size / 1000)} kB`);
