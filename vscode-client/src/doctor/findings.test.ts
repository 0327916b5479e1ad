import { expect, it } from "vitest";
import { findingsText } from "./findings";

it("findings are told with what to do", () => {
  const checks = [
    { name: "system", ok: true, detail: "peft-daemon 0.1.0", fix: "" },
    { name: "model", ok: false, detail: "it is not here", fix: "`peft-daemon setup`" },
  ];
  expect(findingsText({ checks })).toBe(
    "ok   system    peft-daemon 0.1.0\nBAD  model     it is not here\n               → `peft-daemon setup`\n",
  );
});
