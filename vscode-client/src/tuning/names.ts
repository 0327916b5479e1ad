/** The name of a repository's adapter. */

const LONGEST = 60;

/** The folder's name as a name for an adapter, with a number where another adapter is called so. */
export function adapterName(folder: string, taken: ReadonlySet<string>): string {
  const plain = folder
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, "-")
    .slice(0, LONGEST - 10)
    .replaceAll(/^[-._]+|[-._]+$/g, "");
  // `base` means no adapter, and hexadecimal digits alone could be an adapter's digest.
  const name = plain === "" || plain === "base" || /^[0-9a-f]+$/.test(plain) ? `${plain || "this"}-code` : plain;
  for (let number = 1; ; number += 1) {
    const candidate = number === 1 ? name : `${name}-${number}`;
    if (!taken.has(candidate)) {
      return candidate;
    }
  }
}
