import { describe, expect, it } from "vitest";
import { type Adapter, adapterPicks, readAdapters, readMetrics } from "./picks";

const row = {
  name: "mine",
  digest: "d1",
  base: "b",
  base_family: "qwen2",
  method: "lora",
  rank: 16,
  task: "fill",
  size_bytes: 17_600_000,
  created: "2026-01-01",
  active_for: ["fill@/ws", "intent"],
};
const mine: Adapter = readAdapters([row])[0] ?? expect.fail("no adapter");

describe("readAdapters", () => {
  it("reads the server's list and leaves out what is none", () => {
    expect(readAdapters([row, null, { name: 1 }])).toEqual([
      {
        name: "mine",
        digest: "d1",
        method: "lora",
        rank: 16,
        task: "fill",
        sizeBytes: 17_600_000,
        activeFor: row.active_for,
      },
    ]);
    expect(readAdapters({ error: 1 })).toEqual([]);
  });
});

describe("adapterPicks", () => {
  it("offers automatic and base first, automatic only for a folder", () => {
    expect(adapterPicks([mine], "/ws", new Map()).map((pick) => pick.adapter)).toEqual([undefined, "base", "mine"]);
    expect(adapterPicks([], undefined, new Map()).map((pick) => pick.adapter)).toEqual(["base"]);
  });

  it("marks what is in use here and by default", () => {
    const pick = adapterPicks([mine], "/ws", new Map()).at(-1);
    expect(pick).toMatchObject({
      label: "$(check) mine",
      description: "in use here for fill, in use by default for intent",
      detail: "lora of rank 16 · for fill · 18 MB",
    });
    const elsewhere = adapterPicks([{ ...mine, activeFor: ["fill@/other"] }], "/ws", new Map()).at(-1);
    expect(elsewhere).toMatchObject({ label: "$(package) mine", description: "" });
  });

  it("tells what the gate measured, else the validation loss", () => {
    const gate = { manifest: { metrics: { gate_exact_served: 0.15, gate_exact: 0.2083, gate_holes: 120 } } };
    const loss = { manifest: { metrics: { validation_loss: 1.33, steps: "many" } } };
    const detail = (shown: unknown): string | undefined =>
      adapterPicks(
        [{ ...mine, rank: 0, method: "ia3", sizeBytes: 250_000 }],
        "/ws",
        new Map([["d1", readMetrics(shown)]]),
      ).at(-1)?.detail;
    expect(detail(gate)).toBe("ia3 · for fill · 0.3 MB · exactly right 15 % → 21 % of 120 held-out holes");
    expect(detail(loss)).toBe("ia3 · for fill · 0.3 MB · validation loss 1.330");
    expect(detail({})).toBe("ia3 · for fill · 0.3 MB");
  });
});
