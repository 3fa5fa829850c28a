/**
 * Releases in the order of arrival, each as soon as what it waits for is there. Bounded in bytes: the producer awaits `room`.
 * The first failure stops everything behind it for good: nothing may overtake an answer that could not be released.
 */
export class ReleaseQueue {
  readonly #bytesMax: number;
  #bytes = 0;
  #tail: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | null = null;
  #waiting: (() => void)[] = [];

  readonly #onFailure: (error: unknown) => void;

  /** `onFailure` is called once, with the first failure: the producer may be waiting for something else. */
  constructor(bytesMax: number, onFailure: (error: unknown) => void) {
    this.#bytesMax = bytesMax;
    this.#onFailure = onFailure;
  }

  /** Puts a release behind all earlier ones. */
  add(bytes: number, step: () => Promise<void>): void {
    this.#bytes += bytes;
    this.#tail = this.#tail.then(async () => {
      if (this.#failure === null) {
        try {
          await step();
        } catch (error) {
          this.#failure = { error };
          this.#onFailure(error);
        }
      }
      this.#bytes -= bytes;
      this.#wake();
    });
  }

  /**
   * Resolves when there is room for more.
   * @throws the first failure of a release.
   */
  async room(): Promise<void> {
    while (this.#bytes > this.#bytesMax && this.#failure === null) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
    this.#throwFailure();
  }

  /**
   * Resolves when all that was added has been released.
   * @throws the first failure of a release.
   */
  async drained(): Promise<void> {
    await this.#tail;
    this.#throwFailure();
  }

  #wake(): void {
    if (this.#failure === null && this.#bytes > this.#bytesMax) {
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) {
      resume();
    }
  }

  #throwFailure(): void {
    if (this.#failure !== null) {
      throw this.#failure.error;
    }
  }
}
