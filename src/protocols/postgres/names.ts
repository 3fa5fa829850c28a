/**
 * What the names of prepared statements and portals mean upstream, tracked ahead of its answers.
 *
 * A change is made when its message is forwarded, on the assumption that it will succeed: within one group (up to the next
 * Sync or Query) that is always safe, since upstream skips everything after the first failure. When a failure comes back, the
 * changes of the messages that failed or were skipped are undone, newest first. A later group that names something with an
 * unsettled change waits until it is known (`isSettled`). So a name never means one thing here and another upstream.
 */
export class Names<T> {
  readonly #values = new Map<string, T>();
  readonly #unsettled = new Map<string, { group: number; changes: number }>();

  get size(): number {
    return this.#values.size;
  }

  get(name: string): T | undefined {
    return this.#values.get(name);
  }

  /** Sets or removes (`undefined`) a name in `group`; the returned change is settled or undone exactly once. */
  change(name: string, value: T | undefined, group: number): NameChange {
    const before = this.#values.get(name);
    this.#put(name, value);
    const unsettled = this.#unsettled.get(name);
    if (unsettled === undefined) {
      this.#unsettled.set(name, { group, changes: 1 });
    } else {
      unsettled.group = group;
      unsettled.changes++;
    }
    return {
      settle: () => {
        this.#settle(name);
      },
      undo: () => {
        this.#put(name, before);
        this.#settle(name);
      },
    };
  }

  /** Removes every name. */
  clear(group: number): NameChange {
    const changes = [...this.#values.keys()].map((name) => this.change(name, undefined, group));
    return {
      settle: () => {
        for (const change of changes) {
          change.settle();
        }
      },
      undo: () => {
        for (const change of changes) {
          change.undo();
        }
      },
    };
  }

  /** Whether what every name means is certain for a message of `group`. */
  areSettled(group: number): boolean {
    return [...this.#unsettled.values()].every((unsettled) => unsettled.group === group);
  }

  /** Whether what `name` means is certain for a message of `group`. */
  isSettled(name: string, group: number): boolean {
    const unsettled = this.#unsettled.get(name);
    return unsettled === undefined || unsettled.group === group;
  }

  #put(name: string, value: T | undefined): void {
    if (value === undefined) {
      this.#values.delete(name);
    } else {
      this.#values.set(name, value);
    }
  }

  #settle(name: string): void {
    const unsettled = this.#unsettled.get(name);
    if (unsettled !== undefined) {
      unsettled.changes--;
      if (unsettled.changes <= 0) {
        this.#unsettled.delete(name);
      }
    }
  }
}

/** A change whose fate upstream is not known yet. */
export interface NameChange {
  readonly settle: () => void;
  readonly undo: () => void;
}

/**
 * PostgreSQL keeps statements and portals by the first 63 bytes of their names (NAMEDATALEN): two longer names can be one there
 * and two here.
 */
export const nameBytesMax = 63;

export function isTooLongName(name: string): boolean {
  return Buffer.byteLength(name, "utf8") > nameBytesMax;
}
