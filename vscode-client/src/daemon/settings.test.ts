import { describe, expect, it } from "vitest";
import { choicesOf, type DaemonSetting, objection, readDaemonSettings, settingPicks, writtenValue } from "./settings";

const threads: DaemonSetting = {
  name: "threads",
  value: 0,
  source: "default",
  description: "CPU threads",
  default: 0,
  allowed: { type: "integer", minimum: 0, maximum: 1024 },
};
const model: DaemonSetting = {
  ...threads,
  name: "model",
  value: "m",
  source: "user file",
  allowed: { type: "string" },
};

describe("readDaemonSettings", () => {
  it("reads the command's rows and leaves out what is none", () => {
    expect(readDaemonSettings([threads, null, { name: 1 }, { name: "x", value: [] }])).toEqual([threads]);
    expect(readDaemonSettings({ error: 1 })).toEqual([]);
  });
});

describe("settingPicks", () => {
  it("begins with what is changed most often and says what counts", () => {
    expect(settingPicks([model, threads]).map(({ label, description }) => [label, description])).toEqual([
      ["threads", "0 (default)"],
      ["model", "m"],
    ]);
    const [pick] = settingPicks([{ ...threads, source: "environment" }]);
    expect(pick?.description).toContain("wins over your choice");
  });
});

it("offers values where there are few", () => {
  expect(choicesOf(threads)).toBeUndefined();
  expect(choicesOf({ ...threads, allowed: { type: "boolean" } })).toEqual(["true", "false"]);
  expect(choicesOf({ ...threads, allowed: { type: "string", enum: ["auto", "off"] } })).toEqual(["auto", "off"]);
});

it.each(["four", "-1", "1025", "1.5", "0x10"])("refuses %j threads before the command does", (typed) => {
  expect(objection(threads, typed)).toBe("A whole number from 0 to 1024");
});

it("takes what the command takes", () => {
  expect(["", "0", "8"].map((typed) => objection(threads, typed))).toEqual([undefined, undefined, undefined]);
  expect(objection(model, "anything")).toBeUndefined();
});

it("goes back to what the user's own file had, or to nothing", () => {
  expect([writtenValue(model), writtenValue(threads)]).toEqual(["m", undefined]);
});
