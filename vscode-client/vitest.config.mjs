// Modules with logic use one thing of the editor: the words that it translates. In their tests these are plain English.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["src/**/*.test.ts"] },
  resolve: { alias: { vscode: new URL("src/testing/vscode.ts", import.meta.url).pathname } },
});
