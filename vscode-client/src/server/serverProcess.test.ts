import { resolve } from "node:path";
import { expect, it } from "vitest";
import type { CommandLine } from "../commandLine/commandLine";
import { runCommand } from "../commandLine/peftDaemon";
import { gone, serverArguments, startServer } from "./serverProcess";

const node = (script: string): CommandLine => ({ program: process.execPath, first: ["-e", script], origin: "setting" });

it("the server gets a log level only where it is not the default", () => {
  const command: CommandLine = { program: "python3", first: ["-m", "peft_daemon"], origin: "setting" };
  expect(serverArguments(command, "warning")).toEqual(["-m", "peft_daemon", "lsp"]);
  expect(serverArguments(command, "debug")).toEqual(["-m", "peft_daemon", "lsp", "--log-level", "debug"]);
});

it("a program that is not there is said at once, with what to do", async () => {
  const missing: CommandLine = { program: "/nowhere/peft-daemon", first: [], origin: "setting" };
  const said = "There is no program '/nowhere/peft-daemon'. Correct the setting 'peft-daemon.command'";
  await expect(startServer(missing, "warning")).rejects.toThrow(said);
  await expect(runCommand(missing, ["doctor"])).rejects.toThrow(said);
  await expect(startServer({ ...missing, origin: "path" }, "warning")).rejects.toThrow("Run 'peft-daemon: Set Up'");
});

it("a file that is no program is said at once", async () => {
  const file: CommandLine = { program: resolve("package.json"), first: [], origin: "setting" };
  await expect(startServer(file, "warning")).rejects.toThrow("is no program, or may not be started");
});

it("a process that does not end by itself is ended", async () => {
  const child = await startServer(node("setInterval(() => 0, 1000)"), "warning");
  await gone(child, 50);
  expect(child.signalCode).toBe("SIGKILL");
  await gone(child);
});

it("a process that ends by itself is waited for", async () => {
  const child = await startServer(node("process.stdin.on('end', () => process.exit(3)).resume()"), "warning");
  child.stdin?.end();
  await gone(child, 60_000);
  expect(child.exitCode).toBe(3);
});
