/** Answers that frames have made and the relay has not taken yet. */
import type { Answer, Progress, TransactionEnd } from "#protocols/driver.ts";
import type { MaskPlan } from "#mask/masker.ts";
import { openPlan } from "./items.ts";
import type { PostgresReply } from "./reply.ts";

const nothing = Buffer.alloc(0);

export class AnswerQueue {
  #answers: Answer<PostgresReply>[] = [];

  get length(): number {
    return this.#answers.length;
  }

  /** The answers so far, once. */
  take(): Answer<PostgresReply>[] {
    const answers = this.#answers;
    this.#answers = [];
    return answers;
  }

  add(
    reply: PostgresReply,
    plan: MaskPlan,
    progress: Progress | null,
    completion: Answer<PostgresReply>["completion"] = null,
    transaction: TransactionEnd | null = null,
  ): void {
    this.#answers.push({ reply, plan, bytes: reply.bytes.length, progress, completion, transaction });
  }

  /** Bytes that the gateway made itself. */
  plain(bytes: Buffer): void {
    this.add({ kind: "plain", bytes }, openPlan, null);
  }

  /** Ends a command of which the client hears nothing more. */
  conclude(progress: Progress, status: "skipped" | "may-have-run", rows: number, bytes: number): void {
    this.add({ kind: "plain", bytes: nothing }, openPlan, progress, { status, rows, bytes, tag: null, sqlState: null });
  }
}
