import { describe, expect, it } from "vitest";
import { NOT_SET_UP, readStatus, shown, type Status } from "./status";

const idle: Status = {
  state: "idle",
  model: "qwen2.5-coder-0.5b-instruct",
  adapter: "code-fim",
  latencyMs: 312,
  message: "",
  off: new Map(),
  learning: "",
};

describe("readStatus", () => {
  it("reads the server's words", () => {
    const params = { state: "thinking", model: "m", adapter: "a", latencyMs: 5, message: "x", learning: "y" };
    const off = [{ uri: "file:///p/.env", why: "no suggestions in .env" }, "nonsense"];
    expect(readStatus({ ...params, off })).toEqual({
      ...params,
      off: new Map([["file:///p/.env", "no suggestions in .env"]]),
    });
  });

  it("takes null and what is missing for unknown", () => {
    const unknown = { model: "", adapter: "", latencyMs: undefined, message: "", off: new Map(), learning: "" };
    expect(readStatus({ state: "off", latencyMs: null })).toEqual({ state: "off", ...unknown });
  });

  it.each([undefined, null, [], "idle", {}, { state: "dancing" }])("has no use for %j", (params) => {
    expect(readStatus(params)).toBeUndefined();
  });
});

describe("shown", () => {
  it("says everything in one sentence", () => {
    expect(shown(idle, undefined)).toEqual({
      text: "$(sparkle) peft-daemon",
      label: "peft-daemon: idle, qwen2.5-coder-0.5b-instruct, adapter code-fim, 312 ms",
      alarming: false,
    });
  });

  it("says that there is no adapter, and nothing of what is not known", () => {
    expect(shown({ ...idle, adapter: "" }, undefined).label).toBe(
      "peft-daemon: idle, qwen2.5-coder-0.5b-instruct, no adapter, 312 ms",
    );
    expect(shown({ ...idle, adapter: "", latencyMs: undefined }, undefined).label).toBe(
      "peft-daemon: idle, qwen2.5-coder-0.5b-instruct",
    );
    expect(shown({ ...idle, state: "loading", model: "", adapter: "", latencyMs: undefined }, undefined).label).toBe(
      "peft-daemon: starting",
    );
  });

  it("says why the active document gets no suggestions, and nothing of it elsewhere", () => {
    const status = { ...idle, off: new Map([["file:///p/.env", "no suggestions in .env: it holds secrets"]]) };
    expect(shown(status, undefined, "file:///p/.env")).toMatchObject({ text: "$(circle-slash) peft-daemon" });
    expect(shown(status, undefined, "file:///p/.env").label).toMatch(
      /^peft-daemon: no suggestions in .env: it holds secrets, idle, /,
    );
    for (const other of ["file:///p/app.py", undefined]) {
      expect(shown(status, undefined, other)).toEqual(shown(idle, undefined));
    }
    expect(shown({ ...NOT_SET_UP, off: status.off }, undefined, "file:///p/.env")).toEqual(
      shown(NOT_SET_UP, undefined),
    );
  });

  it("says what is learned in the background, if nothing is wrong", () => {
    const learning = "learning shop: step 4 of 9";
    expect(shown({ ...idle, learning }, undefined).label).toMatch(/, 312 ms, learning shop: step 4 of 9$/);
    expect(shown({ ...NOT_SET_UP, learning }, undefined)).toEqual(shown(NOT_SET_UP, undefined));
  });

  it("says what is wrong", () => {
    expect(shown(NOT_SET_UP, undefined)).toEqual({
      text: "$(warning) peft-daemon",
      label: "peft-daemon: error: not set up",
      alarming: true,
    });
  });

  it("says until when it is quiet, but errors come first", () => {
    expect(shown(idle, "10:20")).toMatchObject({ text: "$(bell-slash) peft-daemon", alarming: false });
    expect(shown(idle, "10:20").label).toMatch(/^peft-daemon: idle, snoozed until 10:20, /);
    expect(shown(NOT_SET_UP, "10:20").text).toBe("$(warning) peft-daemon");
  });
});
