// Formats Lua files, or with --check says which are not formatted: node scripts/lua.mjs [--check] FOLDER
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as stylua from "@johnnymorganz/stylua";

const check = process.argv.includes("--check");
const folder = process.argv.at(-1);

function config() {
  const made = stylua.Config.new(); // formatCode takes it away
  made.column_width = 120;
  made.indent_type = stylua.IndentType.Spaces;
  made.indent_width = 2;
  return made;
}

const changed = [];
for (const name of (await readdir(folder, { recursive: true })).filter((each) => each.endsWith(".lua")).sort()) {
  const path = join(folder, name);
  const text = await readFile(path, "utf8");
  const formatted = stylua.formatCode(text, config(), undefined, stylua.OutputVerification.Full);
  if (formatted !== text) {
    changed.push(path);
    if (!check) {
      await writeFile(path, formatted);
    }
  }
}
if (check && changed.length > 0) {
  console.error(`not formatted: ${changed.join(", ")}; run npm run format`);
  process.exitCode = 1;
}
