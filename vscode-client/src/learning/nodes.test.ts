import { describe, expect, it } from "vitest";
import { readAdapters } from "../adapters/picks";
import { type Learning, readKept, readLearning, readLog } from "./answers";
import { type Facts, type Node, nodes } from "./nodes";

const status = {
  setting: "ask",
  minutes_today: 12.5,
  minutes_a_day: 60,
  paused: "",
  missing: [],
  here: {
    root: "/ws/shop",
    choice: "on",
    activity: "waiting",
    line: "waits: an idle machine",
    last: "in use: 43% of 14 places",
    last_at: 1_700_000_000,
    serving: {
      name: "shop-learned",
      since: 1_700_000_000,
      learned: true,
      gain: { exact: 0.43, exact_before: 0.36, places: 14, low: -0.26, high: 0.38 },
      acceptance: { accepted: 18, decided: 58 },
      acceptance_before: { accepted: 9, decided: 40 },
    },
  },
};
const log = {
  file: "l",
  entries: [
    { time: 1, event: "started", text: "first" },
    { time: 2, event: "learned", text: "last" },
  ],
};
const learning: Learning = readLearning(status) ?? expect.fail("no answer");
const facts: Facts = {
  folders: [{ folder: "/ws/shop", learning, log: readLog(log) }],
  adapters: readAdapters([
    {
      name: "shop-learned",
      digest: "d",
      method: "lora",
      rank: 4,
      task: "fill",
      size_bytes: 1,
      active_for: ["fill@/ws/shop"],
    },
    { name: "other", digest: "e", method: "lora", rank: 4, task: "fill", size_bytes: 1, active_for: [] },
  ]),
  kept: readKept({ kept_per_100_shown: 38.25 }),
};
const changed = (here: object, more: object = {}): Facts => ({
  ...facts,
  folders: [
    { folder: "/ws/shop", learning: readLearning({ ...status, ...more, here: { ...status.here, ...here } }), log: [] },
  ],
});
const all = (given: Facts): Node[] => {
  const flat = (each: Node): Node[] => [each, ...each.children.flatMap(flat)];
  return nodes(given).flatMap(flat);
};
const of = (given: Facts, label: string): Node =>
  all(given).find((node) => node.label === label) ?? expect.fail(`no ${label}`);

describe("the view", () => {
  it("says what serves a repository since when, what it gained and how much is accepted", () => {
    expect(of(facts, "Serves").description).toMatch(/^shop-learned, since .*Nov/);
    expect(of(facts, "Gain").description).toBe("43 % of 14 places right, 36 % before");
    expect(of(facts, "Gain").tooltip).toContain("+7 points; at 95 % it lies between −26 and +38");
    expect(of(facts, "Accepted").description).toBe("31 % of 58 suggestions, 23 % of 40 before");
    expect(of(facts, "Accepted and still there").description).toBe("38.3 of 100 characters shown");
  });

  it("offers to roll back only what was learned in the background", () => {
    expect(of(facts, "Serves").kind).toBe("serving.learned");
    const base = changed({ serving: { name: "", since: 0, learned: false, gain: null, acceptance: null } });
    expect(of(base, "Serves")).toMatchObject({ kind: "serving", description: "the model without an adapter" });
    expect(all(base).map(({ label }) => label)).not.toContain("Gain");
  });

  it.each([
    ["on", {}, {}, "waits: an idle machine · 12.5 of 60 minutes used today"],
    ["off", { choice: "off", line: "switched off" }, {}, "switched off · 12.5 of 60 minutes used today"],
    ["paused", {}, { paused: "until 14:05" }, "paused until 14:05"],
    ["running", { activity: "running", line: "learning shop: step 4 of 9" }, {}, /^shop: step 4 of 9/],
    ["on", {}, { missing: ["torch"] }, "needs packages that are not installed"],
  ] as const)("says that learning is %s", (state, here, more, words) => {
    const node = of(changed(here, more), "Learning");
    expect(node.kind).toBe(`learning.${state}`);
    expect(node.description).toMatch(words);
  });

  it("has the log, the newest entry first, and every node an id of its own", () => {
    expect(of(facts, "Log").children.map(({ description }) => description)).toEqual(["last", "first"]);
    expect(of(changed({}), "Log").children.map(({ label }) => label)).toEqual(["nothing was done yet"]);
    const ids = all(facts).map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("has the adapters beside, and where each is in use", () => {
    expect(of(facts, "other").description).toBe("for fill, not in use");
    const [own] = of(facts, "Adapters").children;
    expect(own).toMatchObject({
      label: "shop-learned",
      description: "in use: shop",
      target: { adapter: "shop-learned" },
    });
  });

  it("shows a repository that is open in two folders once, and nothing where there is nothing", () => {
    const twice = { ...facts, folders: [...facts.folders, { folder: "/ws/shop/lib", learning, log: [] }] };
    expect(nodes(twice).filter(({ icon }) => icon === "repo")).toHaveLength(1);
    expect(nodes({ folders: [{ folder: "/x", learning: undefined, log: [] }], adapters: [], kept: undefined })).toEqual(
      [],
    );
    expect(readLearning({ error: {} })).toBeUndefined();
  });
});
