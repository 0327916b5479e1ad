/** This machine, as finding programs asks it. */
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { type Machine, MODULE } from "./commandLine";
import { run } from "./running";

export const thisMachine: Machine = {
  platform: process.platform,
  home: homedir(),
  path: process.env["PATH"] ?? "",
  async isProgram(path) {
    try {
      await access(path, constants.X_OK);
      return (await stat(path)).isFile();
    } catch {
      return false;
    }
  },
  async hasModule(python) {
    try {
      const { code } = await run({
        program: python,
        args: [...MODULE, "--version"],
        signal: AbortSignal.timeout(20_000),
      });
      return code === 0;
    } catch {
      return false;
    }
  },
};
