import { expect, it } from "vitest";
import { reportPicks } from "./list";

const row = (name: string, created: string) => ({
  name,
  created,
  data: "conala, test",
  items: 500,
  model: "qwen",
  strategies: ["zero-shot", "adapter"],
  folder: "/f",
});

it("reports are listed with the newest first", () => {
  const picks = reportPicks([row("old", "2026-01-01T10:00:00+00:00"), row("new", "2026-02-01T10:00:00+00:00"), null]);
  expect(picks).toEqual([
    {
      label: "new",
      description: "2026-02-01 10:00",
      detail: "conala, test, 500 items: zero-shot, adapter · qwen",
      name: "new",
    },
    expect.objectContaining({ name: "old" }),
  ]);
  expect(reportPicks(undefined)).toEqual([]);
});
