export type Manifest = Readonly<Record<string, unknown>>;
export function checkChannel(version: string, preRelease: boolean): void;
export function missingFields(manifest: Manifest): string[];
export function publishedManifest(manifest: Manifest, repository: string | undefined): Manifest;
export function publishedReadme(text: string, version: string, repository: string | undefined): string;
export function picturesOf(text: string): string[];
