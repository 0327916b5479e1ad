import { describe, expect, it } from "vitest";
import { STARTING } from "../status/status";
import { menuItems, type Surroundings } from "./items";

const around: Surroundings = {
  status: { ...STARTING, state: "idle", adapter: "mine" },
  setUp: true,
  snoozed: false,
  language: { id: "python", on: true },
  folder: { name: "ws", on: false },
  trusted: true,
};
const labels = (given: Partial<Surroundings>): string[] => menuItems({ ...around, ...given }).map(({ label }) => label);

describe("menuItems", () => {
  it("offers what fits the editor", () => {
    expect(labels({})).toEqual(
      expect.arrayContaining(["$(circle-slash) Turn off for python", "$(circle-outline) Turn on in ws"]),
    );
    expect(labels({ language: undefined, folder: undefined }).filter((label) => label.includes("Turn"))).toEqual([]);
  });

  it("offers tuning only in a folder that is trusted", () => {
    const tune = "$(mortar-board) Tune on this repository";
    expect(labels({})).toContain(tune);
    expect(labels({ trusted: false })).not.toContain(tune);
    expect(labels({ folder: undefined })).not.toContain(tune);
  });

  it("begins with what mends, when something is wrong", () => {
    expect(labels({ status: { ...around.status, state: "error" } })[0]).toBe("$(debug-restart) Restart the daemon");
    expect(labels({ snoozed: true })[0]).toBe("$(bell) Wake suggestions");
  });

  it("begins with what the message tells to do", () => {
    const missing = {
      ...around.status,
      state: "error" as const,
      message: "no model. Type `peft-daemon models pull m`",
    };
    expect(menuItems({ ...around, status: missing })[0]).toMatchObject({ command: "peftDaemon.setUp" });
    expect(labels({ status: missing })[0]).toBe("$(tools) Fetch the Model");
    expect(
      menuItems({ ...around, status: missing }).filter(({ command }) => command === "peftDaemon.setUp"),
    ).toHaveLength(1);
  });

  it("offers nothing that cannot work before it is set up", () => {
    expect(menuItems({ ...around, setUp: false }).map(({ command }) => command)).toEqual([
      "peftDaemon.setUp",
      "peftDaemon.showLogs",
    ]);
  });
});
