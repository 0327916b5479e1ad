import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  checkChannel,
  missingFields,
  picturesOf,
  publishedManifest,
  publishedReadme,
  type Manifest,
} from "../scripts/publication.mjs";

const ROOT = join(__dirname, "..");
const HOME = "https://example.org/someone/peft-daemon";
const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Manifest;
const readme = readFileSync(join(ROOT, "README.md"), "utf8");

describe("what is published", () => {
  it("has every field that the marketplaces show, and nothing of how it is built", () => {
    const published = publishedManifest(manifest, HOME);
    expect(missingFields(published)).toEqual([]);
    expect(published).toMatchObject({
      repository: { type: "git", url: `${HOME}.git` },
      bugs: { url: `${HOME}/issues` },
      homepage: `${HOME}#readme`,
    });
    expect(Object.keys(published)).not.toEqual(expect.arrayContaining(["scripts"]));
    expect(Object.keys(published)).not.toEqual(expect.arrayContaining(["private"]));
    expect(missingFields(publishedManifest(manifest, undefined))).toEqual(["repository", "bugs", "homepage"]);
  });

  it("takes no address that a marketplace would refuse", () => {
    for (const wrong of ["http://example.org/x", `${HOME}/`, "example.org/x", `${HOME}?tab=readme`]) {
      expect(() => publishedManifest(manifest, wrong)).toThrow("REPOSITORY");
    }
  });

  it("is a release with an even minor version and a pre-release with an odd one", () => {
    checkChannel("0.2.0", false);
    checkChannel("0.3.1", true);
    expect(() => {
      checkChannel("0.1.0", false);
    }).toThrow("must be even");
    expect(() => {
      checkChannel("0.2.0", true);
    }).toThrow("must be odd");
    expect(() => {
      checkChannel("0.2.0-rc.1", true);
    }).toThrow("MAJOR.MINOR.PATCH");
  });

  it("has a README whose pictures and pages are found from everywhere", () => {
    const pictures = picturesOf(readme);
    expect(pictures.length).toBeGreaterThan(1);
    for (const each of pictures) {
      expect(existsSync(join(ROOT, "../docs", each))).toBe(true);
    }
    const published = publishedReadme(readme, "0.2.0", HOME);
    expect(published).toContain(`](${HOME}/raw/v0.2.0/docs/media/typing.gif)`);
    expect(published).toContain(`](${HOME}/blob/v0.2.0/docs/vscode.md)`);
    expect(published).not.toContain("](../");
    expect(publishedReadme(readme, "0.2.0", undefined)).toContain("](media/typing.gif)");
  });
});
