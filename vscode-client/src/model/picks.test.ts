import { describe, expect, it } from "vitest";
import type { DaemonSetting } from "../daemon/settings";
import { readPlan } from "../setup/models";
import { addressObjection, isEncrypted } from "./address";
import { type Known, modelMenu } from "./picks";

const setting = (name: string, value: string): DaemonSetting => ({
  name,
  value,
  source: "user file",
  description: "",
  default: "auto",
  allowed: { type: "string" },
});
const row = { bytes: 1.1e9, memory_bytes: 1.5e9, licence: "Apache-2.0", fill_score: null };
const models = [
  { ...row, id: "small", bytes: 491e6, installed: true, chosen: true },
  { ...row, id: "huge", bytes: 8e9, installed: false, chosen: false },
  { ...row, id: "good", installed: false, chosen: false },
];
const plan = readPlan({
  machine: { processor: "p", threads: 2, memory_bytes: 8e9, gpu: "" },
  models: [{ ...row, id: "good", recommended: true, first_suggestion_s: 0.9, writing: 28.4, in_use: false }],
  recommended: "good",
  reason: "r",
});
const known: Known = { models, settings: [setting("engine", "auto")] };
const labels = (given: Partial<Known>): string[] => modelMenu({ ...known, ...given }).map(({ label }) => label);

describe("modelMenu", () => {
  it("has what is here first, then the rest by size", () => {
    expect(labels({})).toEqual([
      "models",
      "$(check) small",
      "$(package) good",
      "$(package) huge",
      "a server",
      "$(remote) Connect to a server…",
    ]);
  });

  it("puts the machine's proposal first once it is measured, with what it predicts", () => {
    const [, first] = modelMenu({ ...known, plan });
    expect(first).toMatchObject({
      label: "$(star-full) good",
      description: "recommended for this machine, 1.1 GB to fetch",
      choice: { kind: "model", id: "good", installed: false },
    });
    expect(first?.detail).toMatch(/^1\.1 GB · first suggestion after 0\.9 s · writes 28 tokens\/s/);
  });

  it("offers what Ollama has by its name, and files by their path, unless they were added", () => {
    const found = [
      { program: "Ollama", name: "qwen:1.5b", path: "/o", bytes: 1e9, model: null },
      { program: "LM Studio", name: "x.gguf", path: "/l/x.gguf", bytes: 1e9, model: null },
      { program: "Ollama", name: "old", path: "/p", bytes: 1e9, model: "old" },
    ];
    const choices = modelMenu({ ...known, found }).flatMap(({ choice }) => (choice?.kind === "found" ? [choice] : []));
    expect(choices.map(({ source }) => source)).toEqual(["ollama:qwen:1.5b", "/l/x.gguf"]);
    expect(labels({ found })).toContain("$(archive) Use qwen:1.5b of Ollama");
  });

  it("says what each program was measured to do, and which is chosen", () => {
    const programs = {
      why: "it is the fastest",
      programs: [
        { path: null, version: "xllamacpp 1", reading: null, writing: null, in_use: false },
        { path: "/built/llama-server", version: "b1", reading: 120.4, writing: 31.2, in_use: true },
      ],
    };
    const settings = [setting("llama_server", "/built/llama-server")];
    const items = modelMenu({ ...known, programs, settings });
    const built = items.find(({ label }) => label.includes("/built"));
    expect(built?.label).toBe("$(check) /built/llama-server");
    expect(built?.detail).toBe("b1 · measured: reads 120, writes 31 tokens/s");
    expect(labels({ programs })).toContain("$(check) the fastest llama.cpp");
  });

  it("offers to leave a server only where one is used", () => {
    const settings = [setting("engine", "upstream"), setting("upstream_url", "http://h:1")];
    expect(labels({ settings })).toContain("$(debug-disconnect) Stop using the server");
    expect(labels({})).not.toContain("$(debug-disconnect) Stop using the server");
  });
});

it("takes addresses of servers, and nothing with a key in it", () => {
  expect(["https://h:8000", "http://h:1/v1"].map(addressObjection)).toEqual([undefined, undefined]);
  expect(["", "h:8000", "ftp://h", "https://key@h"].map((typed) => addressObjection(typed) !== undefined)).toEqual(
    Array(4).fill(true),
  );
  expect([isEncrypted("https://h"), isEncrypted("http://h")]).toEqual([true, false]);
});
