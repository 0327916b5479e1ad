// Writes dist/peft-daemon-VERSION.vsix, with the Python package that `make vsix` has put into out/wheel. Refuses one
// without it, or one that is too large: then something went in by mistake.
//
// REPOSITORY=https://… makes the package for the marketplaces, PRERELEASE=1 that of the pre-release channel.
import { chmod, copyFile, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { createVSIX } from "@vscode/vsce";
import { checkChannel, missingFields, picturesOf, publishedManifest, publishedReadme } from "./publication.mjs";

const MOST_BYTES_BESIDE_WHEEL = 600_000;
const FOLDER = "out/package";
const FILES = ["package.nls.json", "CHANGELOG.md", "LICENSE", "media/icon.png", "media/view.svg", "out/extension.js"];
const FOLDERS = { l10n: /\.json$/, "media/walkthrough": /\.(md|png)$/, "out/wheel": /./ };

const { REPOSITORY: repository } = process.env;
const preRelease = Boolean(process.env.PRERELEASE);
const manifest = JSON.parse(await readFile("package.json", "utf8"));
const { version } = manifest;
const wheel = `peft_daemon-${version}-py3-none-any.whl`;
const packed = (await readdir("out/wheel").catch(() => [])).sort();
if (packed.join(" ") !== `constraints.txt ${wheel}`) {
  throw new Error(`out/wheel must hold ${wheel} and constraints.txt, and holds [${packed.join(" ")}]: run make vsix`);
}
const published = publishedManifest(manifest, repository);
if (repository || preRelease) {
  checkChannel(version, preRelease);
}
if (repository && missingFields(published).length > 0) {
  throw new Error(`package.json lacks ${missingFields(published).join(", ")}`);
}

// vsce packs a folder that has what is published and nothing else.
await rm(FOLDER, { recursive: true, force: true });
const readme = await readFile("README.md", "utf8");
const put = async (name, write) => {
  const path = join(FOLDER, name);
  await mkdir(dirname(path), { recursive: true });
  await write(path);
  await chmod(path, 0o644); // the modes go into the archive, and those of a checkout depend on the umask
};
const copied = [...FILES];
for (const [folder, kind] of Object.entries(FOLDERS)) {
  copied.push(...(await readdir(folder)).filter((name) => kind.test(name)).map((name) => join(folder, name)));
}
const shown = [...JSON.stringify(manifest).matchAll(/"(media\/[^"]+)"/g)].map(([, name]) => name);
for (const page of shown.filter((name) => name.endsWith(".md"))) {
  const pictures = (await readFile(page, "utf8")).matchAll(/!\[[^\]]*\]\(([^)\s]+)\)/g);
  shown.push(...[...pictures].map(([, name]) => join(dirname(page), name)));
}
const lacking = shown.filter((name) => !copied.includes(name));
if (lacking.length > 0) {
  throw new Error(`the package lacks ${lacking.join(", ")}, which it shows`);
}
for (const name of copied) {
  await put(name, (path) => copyFile(name, path));
}
for (const name of repository ? [] : picturesOf(readme)) {
  await put(name, (path) => copyFile(join("../docs", name), path));
}
await put("package.json", (path) => writeFile(path, `${JSON.stringify(published, null, 2)}\n`));
await put("README.md", (path) => writeFile(path, publishedReadme(readme, version, repository)));
await put(".vscodeignore", (path) => writeFile(path, ".vscodeignore\n"));

const packagePath = resolve(`dist/peft-daemon-${version}.vsix`);
await mkdir("dist", { recursive: true });
await createVSIX({
  cwd: FOLDER,
  packagePath,
  dependencies: false,
  allowMissingRepository: true,
  rewriteRelativeLinks: false,
  preRelease,
});
const { size } = await stat(packagePath);
const most = (await stat(`out/wheel/${wheel}`)).size + MOST_BYTES_BESIDE_WHEEL;
if (size > most) {
  throw new Error(`${packagePath} has ${size} bytes, more than ${most}: look at FILES and the imports`);
}
console.log(`${packagePath}: ${(size / 1e6).toFixed(1)} MB`);
