import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const SOURCES = join(__dirname, "..");

/** Files that start processes: they import a value, not only types. */
function starters(): string[] {
  return readdirSync(SOURCES, { recursive: true, encoding: "utf8" })
    .map((file) => file.replaceAll("\\", "/"))
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
    .filter((file) => /import \{(?! type \w+ \}).*\} from "node:child_process"/.test(text(file)))
    .sort();
}

function text(file: string): string {
  return readFileSync(join(SOURCES, file), "utf8");
}

it("no process is started in a workspace's folder, or by a name that is looked up there", () => {
  expect(starters()).toEqual([
    "commandLine/processes.ts",
    "commandLine/running.ts",
    "server/serverProcess.ts",
    "tuning/run.ts",
    "tuning/tune.ts",
  ]);
  for (const file of starters()) {
    const calls = [...text(file).matchAll(/(?:spawn|promisify\(execFile\))\(\s*([^,]+),([^;]*);/g)];
    expect(calls.length, file).toBeGreaterThan(0);
    for (const [call, program = "", rest] of calls) {
      expect(program, `${file}: ${call}`).not.toMatch(/^"[^/]/);
      expect(program.startsWith('"/') || /cwd: (?:work\.cwd \?\? )?homedir\(\)/.test(rest ?? ""), call).toBe(true);
    }
  }
});
