import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CommandLine } from "../commandLine/commandLine";
import { isRunning } from "../commandLine/processes";
import { NONE, type TuneRecord, TuneRuns } from "./run";
import type { View } from "./view";

const STARTED = '{"type":"started","steps":10,"first_step":0}';
const STEP = '{"type":"step","step":3,"steps":10,"loss":1,"eta_s":9}';
const VERDICT = '{"type":"verdict","reason":"better → yes","general_served":{},"general_adapter":{}}';
const REGISTERED = '{"type":"registered","name":"ws","folder":"/f","in_use":["fill"],"why_not":""}';
const CANCELLED = '{\n  "error": {\n    "code": "cancelled",\n    "message": "tuning was interrupted"\n  }\n}';
const MEMORY = '{\n  "error": {\n    "code": "unavailable",\n    "message": "out of memory"\n  }\n}';

let folder = "";
let runs: TuneRuns;
const still = new AbortController().signal;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-"));
  runs = new TuneRuns(join(folder, "runs"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** A program in tune's place, which prints what tune prints; `--resume` and the like are its arguments. */
async function begin(script: string, given: Partial<TuneRecord> = {}, resume = false): Promise<TuneRecord> {
  const file = join(folder, "played.js");
  await writeFile(file, script);
  const command: CommandLine = { program: process.execPath, first: [file], origin: "setting" };
  const run = { name: "ws", root: "/repo/ws", args: ["--repo", "/repo/ws"], resumable: false, ...given };
  return await runs.begin(command, run, resume);
}

const print = (...lines: string[]): string => lines.map((line) => `console.log(${JSON.stringify(line)});`).join("\n");
const waitForInterrupt = `process.on("SIGINT", () => { ${print(CANCELLED)} process.exit(130); }); setInterval(() => 0, 100);`;

describe("TuneRuns", () => {
  it("follows a run to its end and forgets it", async () => {
    const views: View[] = [];
    const record = await begin(print(STARTED, STEP, VERDICT, REGISTERED));
    const outcome = await runs.follow(record, (view) => views.push(view), still);
    expect(outcome).toMatchObject({ kind: "registered", verdict: "better → yes", registered: { inUse: ["fill"] } });
    expect(views.map(({ step }) => step)).toEqual([0, 3, 3, 3]);
    expect(await runs.all()).toEqual([]);
  });

  it("gives the command its arguments, and --resume only to go on", async () => {
    const script = 'console.log(JSON.stringify({ error: { message: process.argv.slice(2).join(" ") } }))';
    const first = await runs.follow(await begin(script), () => undefined, still);
    expect(first).toMatchObject({ failure: { message: "tune --repo /repo/ws --json" } });
    const second = await runs.follow(await begin(script, {}, true), () => undefined, still);
    expect(second).toMatchObject({ failure: { message: "tune --repo /repo/ws --resume --json" } });
  });

  it("interrupts a run, which can go on later", async () => {
    const record = await begin(`${waitForInterrupt}\n${print(STARTED, STEP)}`);
    const interrupt = (view: View): void => {
      if (view.step === 3) {
        void runs.interrupt(record);
      }
    };
    expect(await runs.follow(record, interrupt, still)).toEqual({ kind: "interrupted", step: 3 });
    expect(await runs.of("/repo/ws/src")).toEqual({ ...record, resumable: true, pid: NONE, birth: "" });
    expect(await runs.of("/repo/other")).toBeUndefined();
  });

  it("keeps nothing of a run that was interrupted before it had trained", async () => {
    const record = await begin(`${waitForInterrupt}\n${print('{"type":"loading","what":"x"}')}`);
    const outcome = await runs.follow(record, () => void runs.interrupt(record), still);
    expect(outcome).toMatchObject({ kind: "failed", failure: { code: "cancelled" } });
    expect(await runs.all()).toEqual([]);
  });

  it("keeps a run that failed when it went on, and what it ended with", async () => {
    const record = await begin(print(MEMORY), { resumable: true }, true);
    expect(await runs.follow(record, () => undefined, still)).toMatchObject({ failure: { message: "out of memory" } });
    expect(await runs.of("/repo/ws")).toMatchObject({ resumable: true, pid: NONE });
  });

  it("takes a run that was killed for interrupted", async () => {
    const record = await begin(`${print(STARTED, STEP)} process.kill(process.pid, "SIGKILL")`);
    expect(await runs.follow(record, () => undefined, still)).toEqual({ kind: "interrupted", step: 3 });
  });

  it("tells a failure in the command's own words, or in its last words", async () => {
    const told = await runs.follow(await begin(print(STARTED, MEMORY)), () => undefined, still);
    expect(told).toMatchObject({ kind: "failed", failure: { message: "out of memory" } });
    const died = await runs.follow(await begin('throw new Error("no torch")'), () => undefined, still);
    expect(died).toMatchObject({ kind: "failed" });
  });

  it.runIf(process.platform !== "win32")("is found again by a window that did not begin it", async () => {
    const record = await begin(`${waitForInterrupt}\n${print(STARTED, STEP)}`);
    const leaving = new AbortController();
    await runs.follow(
      record,
      () => {
        leaving.abort();
      },
      leaving.signal,
    );
    expect(await isRunning(record.pid)).toBe(true);

    const later = new TuneRuns(join(folder, "runs"));
    const found = (await later.of("/repo/ws")) ?? expect.fail("the run was forgotten");
    expect(found).toEqual(record);
    expect(await later.isAlive(found)).toBe(true);
    const outcome = later.follow(found, () => void later.interrupt(found), still);
    expect(await outcome).toEqual({ kind: "interrupted", step: 3 });
  });

  it("does not touch another process with the number of a run that has ended", async () => {
    const record: TuneRecord = {
      name: "ws",
      root: "/r",
      args: [],
      pid: process.pid,
      birth: "another",
      resumable: true,
    };
    expect(await runs.isAlive(record)).toBe(false);
    await runs.interrupt(record);
  });

  it.runIf(process.platform !== "win32")("writes files for the user alone", async () => {
    const record = await begin(waitForInterrupt);
    const mode = (await stat(join(folder, "runs", "ws.jsonl"))).mode & 0o777;
    await runs.interrupt(record);
    await runs.follow(record, () => undefined, still);
    expect(mode).toBe(0o600);
  });
});
