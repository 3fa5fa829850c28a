/** What entries say of one another: outcomes of their intents, commands of their sessions. */
import type { Entry, EntrySession } from "#ledger/entry.ts";

import type { Findings } from "./verify-findings.ts";

/** An entry with its place. */
export interface PlacedEntry {
  readonly index: number;
  readonly entry: Entry;
  /** The file that holds it, and where in it. */
  readonly file: string;
  readonly byte: number;
}

/** An intent that no outcome followed. */
export interface OpenIntent {
  readonly index: number;
  readonly type: "command.intent" | "call.intent" | "change.intent" | "provision.intent";
}

/**
 * Checks each entry's references to earlier ones. `earlier` gives an entry before the current one; null when that one is
 * damaged or missing, which is reported at its own place and not again at every reference to it.
 */
export class LinkChecker {
  readonly #findings: Findings;
  readonly #earlier: (index: number) => Entry | null;
  readonly #open = new Map<number, OpenIntent>();
  /** Data keys whose destruction is on record. */
  readonly destroyedKeys = new Set<string>();

  constructor(findings: Findings, earlier: (index: number) => Entry | null) {
    this.#findings = findings;
    this.#earlier = earlier;
  }

  /** Intents without an outcome, in order: what they announced may have happened. */
  get mayHaveRun(): readonly OpenIntent[] {
    return [...this.#open.values()];
  }

  check(placed: PlacedEntry): void {
    const { entry, index } = placed;
    if (index === 0 && entry.type !== "ledger.opened") {
      this.#fault(placed, "the first entry of a log is ledger.opened");
    }
    if ("session" in entry && typeof entry.session === "object" && entry.session !== null) {
      this.#checkSession(placed, entry.session);
    }
    switch (entry.type) {
      case "command.intent":
        if (entry.prepared !== null) {
          const prepared = this.#target(placed, entry.prepared, "command.prepared");
          if (prepared !== null && prepared.session.id !== entry.session.id) {
            this.#fault(placed, `it names entry ${entry.prepared}, which was prepared in another session`);
          }
        }
        this.#open.set(index, { index, type: entry.type });
        break;
      case "call.intent":
      case "change.intent":
      case "provision.intent":
        this.#open.set(index, { index, type: entry.type });
        break;
      case "command.outcome":
        this.#conclude(
          placed,
          entry.intent,
          this.#commandType(entry.intent),
          (intent) => intent.command === entry.command && intent.session.id === entry.session.id,
        );
        break;
      case "call.outcome":
        this.#conclude(
          placed,
          entry.intent,
          "call.intent",
          (intent) => intent.call === entry.call && intent.run === entry.run,
        );
        break;
      case "change.outcome":
        if (entry.intent !== null) {
          this.#conclude(placed, entry.intent, "change.intent", (intent) => intent.change === entry.change);
        }
        break;
      case "provision.outcome":
        this.#conclude(placed, entry.intent, "provision.intent", (intent) => intent.change === entry.change);
        break;
      case "transaction.ended": {
        const first = this.#target(placed, entry.first, this.#commandType(entry.first));
        if (first !== null && first.session.id !== entry.session.id) {
          this.#fault(placed, `it names entry ${entry.first} as its first command, which is of another session`);
        }
        break;
      }
      case "ledger.opened":
        if (entry.size !== index) {
          this.#fault(placed, `it says that ${entry.size} entries came before it, and ${index} did`);
        }
        break;
      case "ledger.recovered":
        if (entry.checkpoint + entry.entries !== index) {
          this.#fault(
            placed,
            `it says that ${entry.checkpoint + entry.entries} entries came before it, and ${index} did`,
          );
        }
        break;
      case "payload.destroyed":
        this.destroyedKeys.add(entry.key);
        break;
      default:
        break;
    }
  }

  #fault(placed: PlacedEntry, words: string): void {
    const { file, byte, index } = placed;
    this.#findings.broken(file, `entry ${index} (${placed.entry.type}): ${words}`, { entry: index, byte });
  }

  /** The entry that `placed` names, when it is earlier and of that type; otherwise that is a fault. */
  #target<T extends Entry["type"]>(placed: PlacedEntry, index: number, type: T): Extract<Entry, { type: T }> | null {
    const target = index < placed.index ? this.#earlier(index) : null;
    if (index >= placed.index || (target !== null && !isOfType(target, type))) {
      this.#fault(placed, `it names entry ${index}, which is not an earlier ${type}`);
      return null;
    }
    return target !== null && isOfType(target, type) ? target : null;
  }

  /** A statement that could not be prepared has an outcome too, and so has a PREPARE in SQL. */
  #commandType(index: number): "command.intent" | "command.prepared" {
    return this.#earlier(index)?.type === "command.prepared" ? "command.prepared" : "command.intent";
  }

  #conclude<T extends OpenIntent["type"] | "command.prepared">(
    placed: PlacedEntry,
    index: number,
    type: T,
    isItsOwn: (intent: Extract<Entry, { type: T }>) => boolean,
  ): void {
    const intent = this.#target(placed, index, type);
    if (intent !== null && !isItsOwn(intent)) {
      this.#fault(placed, `it names entry ${index} as its intent, whose ids are others`);
    } else if (intent !== null) {
      this.#open.delete(index);
    }
  }

  #checkSession(placed: PlacedEntry, session: EntrySession): void {
    const opened = this.#target(placed, session.entry, "session.opened");
    if (opened === null) {
      return;
    }
    const isSame =
      opened.session === session.id &&
      opened.principal === session.principal &&
      opened.onBehalfOf === session.onBehalfOf &&
      opened.grant === session.grant &&
      opened.task === session.task &&
      opened.resource === session.resource;
    if (!isSame) {
      this.#fault(placed, `its session is not the one that entry ${session.entry} opened`);
    }
  }
}

function isOfType<T extends Entry["type"]>(entry: Entry, type: T): entry is Extract<Entry, { type: T }> {
  return entry.type === type;
}
