/** Lines from pieces of UTF-8, which may end in the middle of a character. */

export class Lines {
  readonly #decoder = new TextDecoder();
  #rest = "";

  /** The lines that are complete now. */
  add(piece: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.decode(piece, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines;
  }
}
