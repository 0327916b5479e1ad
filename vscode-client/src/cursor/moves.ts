/** Tells a cursor that was moved from one that an edit has pushed: only the first is news to the language server. */

export interface Spot {
  readonly line: number;
  readonly character: number;
}

export interface Seen {
  readonly uri: string;
  /** Of the document; each edit makes a new one. */
  readonly version: number;
  readonly cursor: Spot;
}

export class Moves {
  #last: Seen | undefined;

  /** Whether the cursor of the editor in front stands where no edit has put it. */
  isMove(seen: Seen): boolean {
    const last = this.#last;
    this.#last = seen;
    if (last?.uri !== seen.uri) {
      return true;
    }
    return (
      last.version === seen.version &&
      (last.cursor.line !== seen.cursor.line || last.cursor.character !== seen.cursor.character)
    );
  }

  /** Whatever comes next is news: the server that was told so far is gone. */
  forget(): void {
    this.#last = undefined;
  }
}
