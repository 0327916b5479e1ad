import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";

const SHOWN = /show(?:Error|Warning|Information)Message\(\s*(`[^`]*`|"[^"]*")\s*(,|\))/g;
const COMMAND =
  /peft-daemon (?:start|stop|restart|doctor|models|adapters|setup|tune|learn|status|config|evaluate|report)|peft-daemon: |\\`/;

const sources = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((each) => {
    const path = join(folder, each.name);
    return each.isDirectory() ? sources(path) : /(?<!\.test)\.ts$/.test(each.name) ? [path] : [];
  });

it("no message tells a command without a button: the editor cuts such a message after its first line", () => {
  const messages = sources(__dirname).flatMap((path) =>
    [...readFileSync(path, "utf8").matchAll(SHOWN)].map(([, text = "", end]) => ({ path, text, bare: end === ")" })),
  );
  expect(messages.filter(({ bare }) => bare).length).toBeGreaterThan(2);
  expect(messages.filter(({ text, bare }) => bare && COMMAND.test(text))).toEqual([]);
});
