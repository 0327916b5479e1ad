import { expect, it } from "vitest";
import { newTestFile, testFiles } from "./testFile";

it("looks beside the file first, then in folders for tests up to the workspace folder", () => {
  expect(testFiles("/w/shop/cart.py", "/w", "test_cart.py")).toEqual([
    "/w/shop/test_cart.py",
    "/w/shop/tests/test_cart.py",
    "/w/shop/test/test_cart.py",
    "/w/shop/__tests__/test_cart.py",
    "/w/test_cart.py",
    "/w/tests/test_cart.py",
    "/w/test/test_cart.py",
    "/w/__tests__/test_cart.py",
  ]);
});

it("looks nowhere else than beside a file that is in no folder of the workspace", () => {
  expect(testFiles("/x/cart.py", "/w", "test_cart.py")).toHaveLength(4);
  expect(testFiles("/x/cart.py", undefined, "test_cart.py")).toHaveLength(4);
});

it("knows the folders of Maven and Gradle", () => {
  const [first] = testFiles("/w/src/main/java/a/Cart.java", "/w", "CartTest.java");
  expect(first).toBe("/w/src/test/java/a/CartTest.java");
});

it("a new file goes into a folder for tests if there is one, else beside the source", async () => {
  const has = (folder: string) => (path: string) => Promise.resolve(path === folder);
  expect(await newTestFile("/w/shop/cart.py", "/w", "test_cart.py", has("/w/tests"))).toBe("/w/tests/test_cart.py");
  expect(await newTestFile("/w/shop/cart.py", "/w", "test_cart.py", has("/none"))).toBe("/w/shop/test_cart.py");
});
