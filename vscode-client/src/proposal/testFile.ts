/** Where the tests of a file are, or would be. */
import { dirname, join, sep } from "node:path";

const FOLDERS = ["tests", "test", "__tests__"] as const;

/** Paths at which the file with the tests of `source` may be, the likeliest first; `root` is the workspace folder. */
export function testFiles(source: string, root: string | undefined, name: string): string[] {
  const [main, tests] = [["", "src", "main", ""].join(sep), ["", "src", "test", ""].join(sep)];
  const found = source.includes(main) ? [join(dirname(source.replace(main, tests)), name)] : [];
  for (const folder of foldersAbove(source, root)) {
    found.push(join(folder, name), ...FOLDERS.map((each) => join(folder, each, name)));
  }
  return found;
}

/** Where a new one goes: into a folder for tests if one is there, else beside the source. `exists` asks the disk. */
export async function newTestFile(
  source: string,
  root: string | undefined,
  name: string,
  exists: (path: string) => Promise<boolean>,
): Promise<string> {
  const beside = join(dirname(source), name);
  for (const path of testFiles(source, root, name)) {
    const folder = dirname(path);
    if (!foldersAbove(source, root).includes(folder) && (await exists(folder))) {
      return path;
    }
  }
  return beside;
}

/** The folder of a file and those around it, up to the workspace folder. */
function foldersAbove(source: string, root: string | undefined): string[] {
  const found = [dirname(source)];
  if (root !== undefined && source.startsWith(root + sep)) {
    for (let folder = dirname(source); folder !== root && folder !== dirname(folder);) {
      folder = dirname(folder);
      found.push(folder);
    }
  }
  return found;
}
