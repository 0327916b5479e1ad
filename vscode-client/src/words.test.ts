/**
 * Every text that people read goes through `l10n.t`, and l10n/bundle.l10n.json, which translators copy, has them all.
 * `RECORD_WORDS=1 npx vitest run src/words.test.ts` writes that file.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import type ts from "typescript";
import { describe, expect, it } from "vitest";
import { parse, sources, wordsOf } from "./testing/words";

const BUNDLE = join(__dirname, "../l10n/bundle.l10n.json");
const files = sources(__dirname).map(parse);
const placed = (file: ts.SourceFile, node: ts.Node): string => {
  const { line } = file.getLineAndCharacterOfPosition(node.getStart(file));
  return `${relative(__dirname, file.fileName)}:${line + 1}: ${node.getText(file)}`;
};

describe("the words of the extension", () => {
  it("all go through l10n.t", () => {
    expect(files.flatMap((file) => wordsOf(file).missed.map((node) => placed(file, node)))).toEqual([]);
  });

  it("are all in the bundle, and the bundle has no others", () => {
    const messages = [...new Set(files.flatMap((file) => wordsOf(file).messages))].sort();
    expect(messages).not.toContain(undefined);
    expect(messages.length).toBeGreaterThan(100);
    if (process.env["RECORD_WORDS"]) {
      writeFileSync(BUNDLE, `${JSON.stringify(Object.fromEntries(messages.map((text) => [text, text])), null, 2)}\n`);
    }
    expect(Object.keys(JSON.parse(readFileSync(BUNDLE, "utf8")) as object).sort()).toEqual(messages);
  });
});
