/** The language server has more of a suggestion that is shown: where, and whether the user is still there. */
import { isRecord } from "../commandLine/answers";

/** A cursor in a version of a document. */
export interface Where {
  readonly uri: string;
  readonly version: number;
  readonly line: number;
  readonly character: number;
}

/** The parameters of `peft-daemon/more`; undefined when they are none. */
export function readMore(params: unknown): Where | undefined {
  const position = isRecord(params) ? params["position"] : undefined;
  if (!isRecord(params) || !isRecord(position)) {
    return undefined;
  }
  const { uri, version } = params;
  const { line, character } = position;
  return typeof uri === "string" &&
    typeof version === "number" &&
    typeof line === "number" &&
    typeof character === "number"
    ? { uri, version, line, character }
    : undefined;
}

export function isSame(one: Where, other: Where): boolean {
  return (
    one.uri === other.uri &&
    one.version === other.version &&
    one.line === other.line &&
    one.character === other.character
  );
}
