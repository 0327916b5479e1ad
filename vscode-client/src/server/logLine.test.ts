import { expect, it } from "vitest";
import { levelOf } from "./logLine";

it.each([
  ["2026-11-25 03:50:08,123 peft_lsp.daemon_connection INFO connected", "info"],
  ["2026-11-25 03:50:08,123 peft_lsp.settings WARNING the client ERROR does not tell", "warn"],
  ["2026-11-25 03:50:08,123 pygls.server DEBUG x", "debug"],
  ["2026-11-25 03:50:08,123 asyncio CRITICAL x", "error"],
  ["Traceback (most recent call last):", "error"],
  ["", "error"],
])("%j is logged as %s", (line, level) => {
  expect(levelOf(line)).toBe(level);
});
