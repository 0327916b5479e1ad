import { describe, expect, it } from "vitest";
import { readEvent } from "./events";

describe("readEvent", () => {
  it.each([
    ['{"type":"loading","what":"reading","done":3,"of":9}', { type: "loading", what: "reading", done: 3, of: 9 }],
    ['{"type":"started","steps":90,"first_step":30,"examples":9}', { type: "started", steps: 90, firstStep: 30 }],
    [
      '{"type":"step","step":1,"steps":90,"epoch":0.1,"loss":1.5,"learning_rate":0.1,"tokens_per_s":9,"memory_bytes":1,"eta_s":75.5}',
      { type: "step", step: 1, steps: 90, loss: 1.5, etaS: 75.5 },
    ],
    ['{"type":"evaluated","step":9,"loss":1.2,"best":true}', { type: "evaluated", step: 9, loss: 1.2, best: true }],
    ['{"type":"saved","step":9}', { type: "saved", step: 9 }],
    [
      '{"type":"done","step":90,"best_step":80,"best_loss":null,"seconds":1.0,"stopped_early":false}',
      { type: "done", step: 90 },
    ],
    [
      '{"type":"verdict","activate":true,"reason":"better","general_served":{"nats":0.5},"general_adapter":{"nats":0.54}}',
      { type: "verdict", reason: "better", forgets: false },
    ],
    [
      '{"type":"verdict","activate":true,"reason":"better","general_served":{"nats":0.5},"general_adapter":{"nats":0.6}}',
      { type: "verdict", reason: "better", forgets: true },
    ],
    [
      '{"type":"registered","name":"ws","digest":"d","folder":"/f","in_use":["fill","intent"],"repository":"/ws","why_not":""}',
      { type: "registered", name: "ws", folder: "/f", inUse: ["fill", "intent"], whyNot: "" },
    ],
  ])("reads %s", (line, event) => {
    expect(readEvent(line)).toEqual(event);
  });

  it.each(["", "text", "[]", "null", '{"type":"new in a later version"}', '{"type":"step"'])(
    "passes over %j",
    (line) => {
      expect(readEvent(line)).toBeUndefined();
    },
  );
});
