import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { confined } from "./confine";

const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const page = (body: string, head = ""): string =>
  `<!doctype html><html><head><meta charset="utf-8">${head}</head><body>${body}</body></html>`;
const policy = (text: string): string => /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(text)?.[1] ?? "";

describe("confined", () => {
  it("lets the page's one script and one style apply, and nothing else", () => {
    const found = policy(confined(page("<script>go()</script>", "<style>a{}</style>")));
    expect(found).toBe(
      `default-src 'none'; style-src ${hash("a{}")}; script-src ${hash("go()")}; base-uri 'none'; form-action 'none'`,
    );
  });

  it("puts the policy before everything that it is about", () => {
    const found = confined(page("", "<style>a{}</style>"));
    expect(found.indexOf("<meta http-equiv")).toBe(found.indexOf("<head>") + "<head>".length);
  });

  it.each([
    "<script>go()</script><script>evil()</script>",
    '<script src="evil.js"></script>',
    '<script>go()</script><SCRIPT src="evil.js"></SCRIPT>',
    "",
  ])("runs no script of a page with %j", (body) => {
    expect(policy(confined(page(body)))).toContain("script-src 'none'");
  });

  it("refuses what has no head", () => {
    expect(() => confined("<p>no page</p>")).toThrow("was not written by peft-daemon");
  });

  it("allows a real report's script and style, by the hashes that the report has itself", () => {
    const report = readFileSync("../tests/fixtures/reports/report.html", "utf8");
    const own = policy(report);
    const added = policy(confined(report));
    for (const source of own.match(/'sha256-[^']+'/g) ?? expect.fail("the report has no policy")) {
      expect(added).toContain(source);
    }
    const meta = `<meta http-equiv="Content-Security-Policy" content="${added}">`;
    expect(confined(report).replace(meta, "")).toBe(report);
  });
});
