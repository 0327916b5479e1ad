/** A pause of suggestions that ends by itself. */

export const SNOOZE_MS = 10 * 60_000;

/** Calls `changed` when a pause begins and when it ends. */
export class Snooze {
  readonly #changed: () => void;
  #until: Date | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** When suggestions come back; undefined while there is no pause. */
  get until(): Date | undefined {
    return this.#until;
  }

  /** Begin a pause, or end the one there is. */
  toggle(): void {
    const begins = this.#until === undefined;
    this.dispose();
    if (begins) {
      this.#until = new Date(Date.now() + SNOOZE_MS);
      this.#timer = setTimeout(() => {
        this.#until = undefined;
        this.#changed();
      }, SNOOZE_MS);
    }
    this.#changed();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#until = undefined;
  }
}
