import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { OF_EXTENSION, OF_SERVER } from "./settings";

type Texts = Readonly<Record<string, string>>;
interface Setting {
  readonly markdownDescription?: string;
  readonly scope: string;
  readonly order: number;
}
interface Group {
  readonly title: string;
  readonly order: number;
  readonly properties: Readonly<Record<string, Setting>>;
}
interface Manifest {
  readonly contributes: {
    readonly configuration: readonly Group[];
    readonly commands: readonly { readonly command: string; readonly title: string }[];
  };
}

const ROOT = join(__dirname, "..");
const read = (name: string): string => readFileSync(join(ROOT, name), "utf8");
const manifest = JSON.parse(read("package.json")) as Manifest;
const texts = JSON.parse(read("package.nls.json")) as Texts;
const { configuration, commands } = manifest.contributes;
const settings = configuration.flatMap(({ properties }) => Object.entries(properties));

/** Keys whose texts people read; `name` only of views. */
const SHOWN = /^(title|description|markdownDescription|label|contents|altText|contextualTitle)$/;

function shownTexts(value: unknown, key: string, path: string): [string, string][] {
  if (typeof value === "string") {
    const isViewsName = key === "name" && path.startsWith(".contributes.views");
    return SHOWN.test(key) || isViewsName || /^(markdown)?enumDescriptions$/i.test(key) ? [[path, value]] : [];
  }
  if (Array.isArray(value)) {
    return value.flatMap((each, index) => shownTexts(each, key, `${path}[${index}]`));
  }
  return Object.entries(value ?? {}).flatMap(([name, each]) => shownTexts(each, name, `${path}.${name}`));
}

describe("package.json", () => {
  it("has every text that people read in package.nls.json, and nothing there is left over", () => {
    const found = shownTexts(manifest, "", "");
    expect(found.length).toBeGreaterThan(50);
    expect(found.filter(([, text]) => !/^%[\w.-]+%$/.test(text))).toEqual([]);
    const used = [...read("package.json").matchAll(/"%([\w.-]+)%"/g)].map(([, key]) => key ?? "");
    expect([...new Set(used)].sort()).toEqual(Object.keys(texts).sort());
  });

  it("has every setting that the extension reads or gives to the server, and no other", () => {
    const named = settings.map(([name]) => name.replace("peft-daemon.", ""));
    expect(named.sort()).toEqual([...OF_SERVER, ...OF_EXTENSION].sort());
  });

  it("shows settings in groups, each in its place", () => {
    expect(configuration.map(({ order }) => order)).toEqual(configuration.map((_, index) => index + 1));
    for (const { properties } of configuration) {
      const orders = Object.values(properties).map(({ order }) => order);
      expect(orders).toEqual(orders.map((_, index) => index + 1));
    }
  });

  it("describes no two settings alike", () => {
    const words = settings.map(([name, { markdownDescription = "" }]) => {
      const text = texts[markdownDescription.slice(1, -1)] ?? "";
      return [name, new Set((text.split(/[.:]\s/)[0] ?? "").toLowerCase().match(/[a-z]{4,}/g))] as const;
    });
    for (const [index, [name, own]] of words.entries()) {
      expect(own.size, name).toBeGreaterThan(2);
      for (const [other, theirs] of words.slice(index + 1)) {
        const common = [...own].filter((word) => theirs.has(word)).length;
        expect(common / Math.min(own.size, theirs.size), `${name} and ${other}`).toBeLessThan(0.6);
      }
    }
  });

  it("says of a setting that is null what counts then", () => {
    for (const [name, setting] of settings.filter(([, each]) => "default" in each && each.default === null)) {
      const told = JSON.stringify(setting).match(/%setting[\w.-]+%/g) ?? [];
      const text = told.map((key) => texts[key.slice(1, -1)]).join(" ");
      expect(text, name).toMatch(/`null`|daemon's own setting/);
    }
  });

  it("has a title for every command that is registered, and registers every one that has a title", () => {
    const sources = (folder: string): string[] =>
      readdirSync(folder, { withFileTypes: true }).flatMap((each) =>
        each.isDirectory() ? sources(join(folder, each.name)) : [join(folder, each.name)],
      );
    const code = sources(__dirname)
      .filter((path) => path.endsWith("extension.ts") || path.endsWith("view.ts"))
      .map((path) => readFileSync(path, "utf8"))
      .join("\n");
    for (const { command } of commands) {
      const name = command.replace("peftDaemon.", "");
      expect(code, command).toMatch(new RegExp(`\\b${name}\\b[:,(]|\\b${name},`));
    }
  });

  it("says of each picture in its pages what is to be seen on it", () => {
    const guide = readdirSync(join(ROOT, "media/walkthrough")).map((name) => `media/walkthrough/${name}`);
    const pages = ["README.md", ...guide].filter((name) => name.endsWith(".md"));
    const told = pages.flatMap((name) => [...read(name).matchAll(/!\[([^\]]*)\]/g)].map(([, text = ""]) => text));
    expect(told.length).toBeGreaterThan(3);
    expect(told.filter((text) => text.split(" ").length < 4)).toEqual([]);
  });
});
