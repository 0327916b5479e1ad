// What a published package says that a checkout cannot: where its home is, and in which channel it appears.
//
// REPOSITORY is the https address of the project's home, where it is published from. Without it a package can be installed from
// its file, and is refused by neither editor; the marketplaces want one.

/** Links of the README out of this folder. */
const PICTURES = /\]\(\.\.\/docs\/(media\/[\w.-]+)\)/g;
const PAGES = /\]\(\.\.\/([\w./-]+\.md)\)/g;

/** Whether a version may be published: even minor versions are releases, odd ones pre-releases, so that neither hides the other. */
export function checkChannel(version, preRelease) {
  const parts = /^(\d+)\.(\d+)\.(\d+)$/.exec(version);
  if (parts === null) {
    throw new Error(`the version ${version} is not MAJOR.MINOR.PATCH, which is all that the marketplaces take`);
  }
  if ((Number(parts[2]) % 2 === 1) !== preRelease) {
    const [is, other] = preRelease ? ["a pre-release", "odd"] : ["a release", "even"];
    throw new Error(`${version} cannot be ${is}: its minor version must be ${other} (docs/releasing.md)`);
  }
}

/** Fields that both marketplaces show or want, and which of them a manifest lacks. */
export function missingFields(manifest) {
  const needed = ["name", "displayName", "description", "version", "publisher", "license", "icon", "categories"];
  const shown = ["keywords", "galleryBanner", "repository", "bugs", "homepage", "engines"];
  return [...needed, ...shown].filter((field) => manifest[field] === undefined);
}

/** The manifest that goes into the package: nothing of how it is built, and where its home is. */
export function publishedManifest(manifest, repository) {
  const published = { ...manifest };
  for (const field of ["scripts", "devDependencies", "private"]) {
    delete published[field];
  }
  if (!repository) {
    return published;
  }
  if (!/^https:\/\/[^\s?#]+[^/\s?#]$/.test(repository)) {
    throw new Error(`REPOSITORY is not an https address without a slash at its end: ${repository}`);
  }
  return {
    ...published,
    repository: { type: "git", url: `${repository}.git` },
    bugs: { url: `${repository}/issues` },
    homepage: `${repository}#readme`,
  };
}

/** The README that goes into the package: pictures from its home, as the marketplaces want, or else from the package itself. */
export function publishedReadme(text, version, repository) {
  const pictures = repository ? `${repository}/raw/v${version}/docs/` : "";
  const pages = repository ? `${repository}/blob/v${version}/` : null;
  return text
    .replace(PICTURES, `](${pictures}$1)`)
    .replace(PAGES, (_, path) => (pages === null ? `](${path})` : `](${pages}${path})`));
}

/** The pictures of a README, below docs/. */
export function picturesOf(text) {
  return [...new Set([...text.matchAll(PICTURES)].map(([, path]) => path))];
}
