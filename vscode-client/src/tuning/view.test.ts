import { describe, expect, it } from "vitest";
import type { TuneEvent } from "./events";
import { advanced, BEGINNING, duration, left, type View } from "./view";

const step = (number: number, etaS: number): TuneEvent => ({
  type: "step",
  step: number,
  steps: 100,
  loss: 1.23456,
  etaS,
});
const loading = (what: string, done = 0, of = 0): TuneEvent => ({ type: "loading", what, done, of });
const after = (...events: TuneEvent[]): View => events.reduce(advanced, BEGINNING);

describe("advanced", () => {
  it("says what is loaded, and counts it", () => {
    expect(after(loading("qwen as float32"))).toMatchObject({ message: "qwen as float32", percent: 0, started: false });
    expect(after(loading("files", 3, 9)).message).toBe("files 3 of 9");
  });

  it("says step, loss and remaining time", () => {
    const view = after({ type: "started", steps: 100, firstStep: 0 }, step(50, 600));
    expect(view).toMatchObject({
      started: true,
      step: 50,
      percent: 45,
      message: "step 50 of 100, loss 1.235, 10 min left",
    });
  });

  it("begins where an earlier run stopped", () => {
    expect(after({ type: "started", steps: 100, firstStep: 40 })).toMatchObject({
      step: 40,
      percent: 36,
      message: "going on after step 40 of 100",
    });
  });

  it("gives judging the rest of the bar", () => {
    const view = after({ type: "started", steps: 100, firstStep: 0 }, step(100, 0), { type: "done", step: 100 });
    expect(view).toMatchObject({ percent: 90, message: "judging the adapter" });
    expect(advanced(view, loading("scale 0.5", 5, 10))).toMatchObject({
      percent: 95,
      message: "judging: scale 0.5 5 of 10",
    });
  });

  it("never goes back", () => {
    const events: TuneEvent[] = [
      { type: "started", steps: 100, firstStep: 0 },
      step(1, 9),
      { type: "evaluated", step: 1, loss: 1, best: true },
      step(99, 9),
      { type: "done", step: 99 },
      loading("base", 1, 10),
      loading("engine"),
      { type: "verdict", reason: "better", forgets: false },
      { type: "registered", name: "n", folder: "f", inUse: [], whyNot: "" },
    ];
    let view = BEGINNING;
    for (const event of events) {
      const next = advanced(view, event);
      expect(next.percent).toBeGreaterThanOrEqual(view.percent);
      view = next;
    }
    expect(view).toMatchObject({ percent: 100, verdict: "better" });
  });
});

describe("times", () => {
  it.each([
    [0, "0 s"],
    [59, "59 s"],
    [60, "1 min"],
    [89, "1 min"],
    [3540, "59 min"],
    [3599, "1 h 0 min"],
    [7500, "2 h 5 min"],
  ])("%i s are %s", (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });

  it("short remaining times are not counted in seconds", () => {
    expect(left(20)).toBe("less than a minute left");
    expect(left(300)).toBe("5 min left");
  });
});
