/** The calls of one run: recorded and not yet answered, being recorded, and waiting for their turn. */
import type { CallId } from "#domain/ids.ts";
import type { RpcId, RpcRequest } from "#protocols/mcp/message.ts";

/** A request that was recorded and forwarded. */
export interface Call {
  readonly id: RpcId;
  readonly callId: CallId;
  /** `closing`: its outcome is being recorded; no second answer counts. */
  state: "open" | "closing";
  cancelTimer: NodeJS.Timeout | null;
}

/** A line with requests that waits until nothing is in flight. */
export interface HeldLine {
  readonly bytes: Uint8Array;
  readonly requests: readonly RpcRequest[];
}

/** Who is in flight. Owned by the relay; a request is in exactly one of the three places. */
export class CallTable {
  readonly #calls = new Map<string, Call>();
  /** Keys of ids whose record is being written. */
  readonly #opening = new Set<string>();
  #held: HeldLine[] = [];
  #idleWaiters: (() => void)[] = [];

  /** Requests that have not been answered, the waiting ones included. */
  get total(): number {
    return this.#held.reduce((sum, line) => sum + line.requests.length, this.#calls.size + this.#opening.size);
  }

  /** True when a request could go now without another in flight. */
  get isFree(): boolean {
    return this.#calls.size + this.#opening.size === 0;
  }

  get heldBytes(): number {
    return this.#held.reduce((sum, line) => sum + line.bytes.length, 0);
  }

  has(id: RpcId): boolean {
    return this.#calls.has(id.key) || this.#opening.has(id.key) || this.#heldIndexOf(id) !== -1;
  }

  get(id: RpcId): Call | null {
    return this.#calls.get(id.key) ?? null;
  }

  /** Calls that were forwarded and have no answer yet. */
  open(): readonly Call[] {
    return [...this.#calls.values()].filter((call) => call.state === "open");
  }

  /** The open ones among `ids`, each once. */
  openAmong(ids: readonly RpcId[]): readonly Call[] {
    return [...new Set(ids.map((id) => id.key))].flatMap((key) => {
      const call = this.#calls.get(key);
      return call === undefined || call.state !== "open" ? [] : [call];
    });
  }

  beginOpening(requests: readonly RpcRequest[]): void {
    requests.forEach((request) => this.#opening.add(request.id.key));
  }

  endOpening(requests: readonly RpcRequest[], opened: readonly Call[]): void {
    requests.forEach((request) => this.#opening.delete(request.id.key));
    opened.forEach((call) => this.#calls.set(call.id.key, call));
  }

  forget(call: Call): void {
    if (this.#calls.get(call.id.key) === call) {
      this.#calls.delete(call.id.key);
    }
  }

  hold(line: HeldLine): void {
    this.#held.push(line);
  }

  /** Takes the oldest line that waits, when nothing is in flight. */
  nextHeld(): HeldLine | null {
    return this.isFree ? (this.#held.shift() ?? null) : null;
  }

  /** Takes every line that waits. */
  takeHeld(): readonly HeldLine[] {
    const held = this.#held;
    this.#held = [];
    return held;
  }

  /** Takes out a request that waits in a line of its own; false when there is none such. */
  dropHeld(id: RpcId): boolean {
    const index = this.#heldIndexOf(id);
    if (index === -1 || this.#held[index]?.requests.length !== 1) {
      return false;
    }
    this.#held.splice(index, 1);
    return true;
  }

  /** Resolves when no request is in flight or waits. */
  idle(): Promise<void> {
    return this.total === 0 ? Promise.resolve() : new Promise((settle) => this.#idleWaiters.push(settle));
  }

  /** To be called after whatever may have made the table empty. */
  settleIdle(): void {
    if (this.total === 0) {
      this.#idleWaiters.splice(0).forEach((settle) => settle());
    }
  }

  #heldIndexOf(id: RpcId): number {
    return this.#held.findIndex((line) => line.requests.some((request) => request.id.key === id.key));
  }
}
