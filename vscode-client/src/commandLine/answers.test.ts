import { describe, expect, it } from "vitest";
import { answer, CANCELLED, documents, failureIn } from "./answers";

const error = JSON.stringify(
  { error: { code: "conflict", message: "a: b. Do c", what: "a", why: "b", fix: "c" } },
  null,
  2,
);
const ended = (stdout: string, code: number | null, stderr = "") => ({ stdout, code, stderr });

describe("documents", () => {
  it("reads one indented document", () => {
    expect(documents('{\n  "a": {\n    "b": 1\n  }\n}\n')).toEqual([{ a: { b: 1 } }]);
  });

  it("reads several, of one line or many, and passes over other text", () => {
    const output = `{"type":"step"}\nwarning: {odd\n[\n  1\n]\n[]\r\n${error}\n`;
    expect(documents(output)).toEqual([{ type: "step" }, [1], [], JSON.parse(error)]);
  });

  it("is not confused by brackets in texts", () => {
    const value = { fix: "}", list: ["]", "{"] };
    expect(documents(JSON.stringify(value, null, 2))).toEqual([value]);
  });

  it("leaves out a document that is not complete", () => {
    expect(documents('{"a":1}\n{\n  "b": ')).toEqual([{ a: 1 }]);
  });
});

describe("answer", () => {
  it("is the first document", () => {
    expect(answer(ended("[]", 0))).toEqual([]);
  });

  it("throws the command's own sentence, also after a document", () => {
    expect(() => answer(ended(`{"plan":1}\n${error}`, 6))).toThrow("a: b. Do c");
    expect(failureIn(ended(error, 5))).toMatchObject({ code: "conflict", what: "a" });
  });

  it("throws the last line of what was complained of, where there is no JSON", () => {
    expect(() => answer(ended("", 1, "Traceback …\nModuleNotFoundError: no torch\n"))).toThrow(
      "ModuleNotFoundError: no torch",
    );
    expect(() => answer(ended("", 3))).toThrow("exit code 3");
  });

  it.each([null, 130])("calls exit code %s an interruption", (code) => {
    expect(failureIn(ended("", code))).toMatchObject({ code: CANCELLED });
  });
});
