/**
 * What has been asked of the resource and not yet answered, in order, and what each answer means.
 *
 *   client            gateway                                   PostgreSQL
 *     │ Parse/Bind/Execute │ push(item)                              │
 *     │ ──────────────────>│ ───────────────────────────────────────>│
 *     │                    │ answer(frame): the oldest item          │
 *     │ <──────────────────│ <───────────────────────────────────────│
 *
 * After an ErrorResponse in the extended protocol PostgreSQL skips everything up to the next Sync; so does this queue: what was
 * skipped is concluded as such and the names that it would have defined are undone. A denied message stands in the queue like
 * any other: upstream was sent a statement that must fail in its place, and that failure is answered in the gateway's words.
 */
import { InvariantError } from "#domain/errors.ts";
import type { Answer, Progress, TransactionEnd } from "#protocols/driver.ts";
import { AnswerQueue } from "./answer-queue.ts";
import type { MaskPlan } from "#mask/masker.ts";
import type { Frame, FrameRun } from "./frames.ts";
import {
  decodeCommandComplete,
  decodeParameterStatus,
  decodeReadyForQuery,
  decodeReport,
  decodeRowDescription,
} from "./messages-backend.ts";
import type { TransactionStatus } from "./messages-backend.ts";
import { backendTypes } from "./messages-types.ts";
import { ItemQueue, openPlan, planOf, statementsOf, unexpected } from "./items.ts";
import type { Item } from "./items.ts";
import { isExpectedParameter } from "./reply.ts";
import type { PostgresReply } from "./reply.ts";
import { TransactionBook } from "./transaction-book.ts";
import { makesSerializable } from "./units.ts";
import type { Portal } from "./units.ts";

export class Exchange {
  readonly #items = new ItemQueue();
  #skipping = false;
  #isSerializable = false;
  readonly #answers = new AnswerQueue();
  readonly #transactions = new TransactionBook();
  /** Portals that were bound and not executed: their intents end as skipped when the portal goes. */
  readonly #unexecuted = new Map<Portal, Progress>();
  #status: TransactionStatus = "idle";

  /** What is asked and not answered, and what is answered and not taken: bounded by who reads the client. */
  get length(): number {
    return this.#items.length + this.#answers.length;
  }

  /** Whether a SERIALIZABLE transaction may be open, or about to be. */
  get isSerializable(): boolean {
    return this.#isSerializable;
  }

  /** Returns true when there are answers to be taken now: upstream skips to the next Sync and will say nothing about this. */
  push(item: Item): boolean {
    this.#items.push(item);
    this.#isSerializable ||= statementsOf(item).some(makesSerializable);
    if (!this.#skipping || item.kind === "sync") {
      return false;
    }
    this.#discardSkipped();
    return this.#answers.length > 0;
  }

  /** Resolves when the number of items, or what is unsettled, has changed. */
  changed(): Promise<void> {
    return this.#items.changed();
  }

  /** The answers that the frames so far have made, once. */
  take(): Answer<PostgresReply>[] {
    this.#items.notify();
    return this.#answers.take();
  }

  /** Puts bytes that the gateway made behind everything that was answered before. */
  answer(bytes: Buffer): void {
    this.#answers.plain(bytes);
  }

  /** Commands that were forwarded and not completed. */
  unfinished(): Progress[] {
    const found = new Set<Progress>(this.#unexecuted.values());
    for (const item of this.#items.all()) {
      if (item.kind === "query") {
        for (const progress of item.progresses.slice(item.current)) {
          found.add(progress);
        }
      } else if (item.kind === "execute" || item.kind === "bind") {
        found.add(item.progress);
      }
    }
    return [...found];
  }

  /** The number of columns that the rows now coming must have; null when any shape will do. Throws when no rows are due. */
  rowsPlan(): MaskPlan {
    const item = this.#oldest();
    if (item.kind === "query") {
      return item.plans[item.current] ?? openPlan;
    }
    if (item.kind === "execute") {
      return item.portal.plan;
    }
    throw unexpected("DataRow", item);
  }

  /** DataRow frames, one after another. */
  rows(run: FrameRun, columns: number): void {
    const item = this.#oldest();
    if (item.kind !== "query" && item.kind !== "execute") {
      throw unexpected("DataRow", item);
    }
    item.rows += run.frames;
    item.bytes += run.bytes.length;
    this.#answers.add(
      { kind: "rows", bytes: run.bytes, rows: run.frames, columns },
      this.rowsPlan(),
      this.#progressOf(item),
    );
  }

  /** Any other frame of the resource. @throws InvariantError when nothing that was asked is answered so. */
  frame(frame: Frame): void {
    switch (frame.type) {
      case backendTypes.parameterStatus: {
        const { name, value } = decodeParameterStatus(frame.body);
        if (!isExpectedParameter(name, value)) {
          throw new InvariantError(`the session's ${name} has changed, which no statement may do`);
        }
        this.#answers.add({ kind: "parameter-status", bytes: frame.bytes, name }, openPlan, null);
        return;
      }
      case backendTypes.noticeResponse:
        this.#notice(frame);
        return;
      case backendTypes.errorResponse:
        this.#error(frame);
        return;
      case backendTypes.readyForQuery:
        this.#ready(frame);
        return;
      case backendTypes.rowDescription:
        this.#rowDescription(frame);
        return;
      case backendTypes.commandComplete:
      case backendTypes.emptyQueryResponse:
      case backendTypes.portalSuspended:
        this.#complete(frame);
        return;
      case backendTypes.parseComplete:
      case backendTypes.bindComplete:
      case backendTypes.closeComplete:
      case backendTypes.noData:
      case backendTypes.parameterDescription:
        this.#acknowledge(frame);
        return;
      default:
        throw new InvariantError(
          `the resource sent a message of type 0x${frame.type.toString(16)} that was not asked for`,
        );
    }
  }

  /**
   * Ends everything that is under way with one error: the resource's side was ended on purpose.
   * Returns true when the client is left inside a group that it has not synced yet.
   */
  abort(error: Buffer, readyForQuery: Buffer): boolean {
    let told = false;
    for (;;) {
      const item = this.#items.oldest();
      if (item === undefined) {
        break;
      }
      this.#items.pop();
      if (item.kind === "sync" || item.kind === "query" || (item.kind === "denied" && item.cycle === "simple")) {
        if (item.kind === "query" && !item.failed) {
          this.#answers.plain(error);
        }
        this.#concludeAborted(item);
        this.#answers.plain(readyForQuery);
        told = false;
        continue;
      }
      if (!told) {
        this.#answers.plain(error);
        told = true;
      }
      this.#concludeAborted(item);
    }
    this.#endPortals();
    this.#status = "idle";
    return told;
  }

  #concludeAborted(item: Item): void {
    if (item.kind === "query") {
      item.change?.undo();
      for (const progress of item.progresses.slice(item.current)) {
        this.#answers.conclude(progress, "may-have-run", item.rows, item.bytes);
      }
    } else if (item.kind === "execute") {
      this.#answers.conclude(item.progress, "may-have-run", item.rows, item.bytes);
    } else if (item.kind === "parse" || item.kind === "bind" || item.kind === "close") {
      item.change?.undo();
    }
  }

  #rowDescription(frame: Frame): void {
    const item = this.#oldest();
    const columns = decodeRowDescription(frame.body).length;
    const reply: PostgresReply = { kind: "row-description", bytes: frame.bytes, columns };
    if (item.kind === "query") {
      this.#answers.add(reply, this.rowsPlan(), this.#progressOf(item));
      return;
    }
    if (item.kind !== "describe") {
      throw unexpected("RowDescription", item);
    }
    this.#items.pop();
    this.#answers.add(reply, item.plan, null);
  }

  #acknowledge(frame: Frame): void {
    const item = this.#oldest();
    const reply: PostgresReply = { kind: "plain", bytes: frame.bytes };
    switch (frame.type) {
      case backendTypes.parameterDescription:
        // The first half of the answer to the Describe of a statement; NoData or RowDescription follows.
        if (item.kind !== "describe") {
          throw unexpected("ParameterDescription", item);
        }
        this.#answers.add(reply, openPlan, null);
        return;
      case backendTypes.noData:
        if (item.kind !== "describe") {
          throw unexpected("NoData", item);
        }
        this.#items.pop();
        this.#answers.add(reply, openPlan, null);
        return;
      case backendTypes.parseComplete:
        if (item.kind !== "parse") {
          throw unexpected("ParseComplete", item);
        }
        item.change.settle();
        this.#items.pop();
        this.#answers.add(reply, openPlan, item.progress);
        return;
      case backendTypes.bindComplete:
        if (item.kind !== "bind") {
          throw unexpected("BindComplete", item);
        }
        item.change.settle();
        this.#items.pop();
        this.#unexecuted.set(item.portal, item.progress);
        this.#transactions.began(item.progress.pass.index, item.portal.prepared.statement);
        this.#answers.add(reply, openPlan, item.progress);
        return;
      default:
        if (item.kind !== "close") {
          throw unexpected("CloseComplete", item);
        }
        item.change?.settle();
        this.#items.pop();
        this.#answers.add(reply, openPlan, null);
    }
  }

  #complete(frame: Frame): void {
    const item = this.#oldest();
    const tag = frame.type === backendTypes.commandComplete ? decodeCommandComplete(frame.body).tag : null;
    const reply: PostgresReply = { kind: "plain", bytes: frame.bytes };
    if (item.kind === "query") {
      const progress = item.progresses[item.current];
      const statement = item.statements[item.current];
      if (progress === undefined || statement === undefined || frame.type === backendTypes.portalSuspended) {
        throw unexpected("a completion", item);
      }
      this.#transactions.began(progress.pass.index, statement);
      const end = this.#transactions.completed(statement, tag);
      this.#answers.add(
        reply,
        openPlan,
        progress,
        { status: "ok", rows: item.rows, bytes: item.bytes, tag, sqlState: null },
        end,
      );
      item.current++;
      item.rows = 0;
      item.bytes = 0;
      return;
    }
    if (item.kind !== "execute") {
      throw unexpected("a completion", item);
    }
    const suspended = frame.type === backendTypes.portalSuspended;
    const end = suspended ? null : this.#transactions.completed(item.portal.prepared.statement, tag);
    this.#items.pop();
    this.#unexecuted.delete(item.portal);
    this.#answers.add(
      reply,
      openPlan,
      item.progress,
      { status: suspended ? "suspended" : "ok", rows: item.rows, bytes: item.bytes, tag, sqlState: null },
      end,
    );
  }

  #notice(frame: Frame): void {
    const item = this.#items.oldest();
    const fields = decodeReport(frame.body, "NoticeResponse");
    const plan = item === undefined ? openPlan : planOf(item);
    this.#answers.add({ kind: "notice", bytes: frame.bytes, fields, rewritten: false }, plan, null);
  }

  #error(frame: Frame): void {
    const fields = decodeReport(frame.body, "ErrorResponse");
    const sqlState = fields.get("C") ?? "XX000";
    const item = this.#items.oldest();
    this.#transactions.failed();
    if (item === undefined) {
      // A FATAL between commands: an administrator ended the session.
      this.#answers.add({ kind: "error", bytes: frame.bytes, fields, rewritten: false }, openPlan, null);
      return;
    }
    const reply: PostgresReply = { kind: "error", bytes: frame.bytes, fields, rewritten: false };
    switch (item.kind) {
      case "query": {
        const progress = item.progresses[item.current];
        item.failed = true;
        if (progress === undefined) {
          // At the end of an implicit transaction (a deferred constraint): every statement had completed.
          this.#answers.add(reply, planOf(item), null);
          return;
        }
        this.#answers.add(reply, item.plans[item.current] ?? openPlan, progress, {
          status: sqlState === "57014" ? "cancelled" : "error",
          rows: item.rows,
          bytes: item.bytes,
          tag: null,
          sqlState,
        });
        for (const skipped of item.progresses.slice(item.current + 1)) {
          this.#answers.conclude(skipped, "skipped", 0, 0);
        }
        item.current = item.progresses.length;
        return;
      }
      case "denied":
        if (item.cycle === "extended") {
          this.#items.pop();
          this.#skipGroup();
        }
        this.#answers.plain(item.error);
        return;
      case "sync":
        // An error at the commit of an implicit transaction; ReadyForQuery follows for this same Sync.
        this.#answers.add(reply, openPlan, null);
        return;
      default:
        this.#items.pop();
        this.#failItem(item, reply, sqlState);
        this.#skipGroup();
    }
  }

  #failItem(item: Exclude<Item, { kind: "query" | "denied" | "sync" }>, reply: PostgresReply, sqlState: string): void {
    const status = sqlState === "57014" ? "cancelled" : "error";
    switch (item.kind) {
      case "parse":
        item.change.undo();
        this.#answers.add(reply, item.plan, item.progress, { status, rows: 0, bytes: 0, tag: null, sqlState });
        return;
      case "bind":
        item.change.undo();
        this.#transactions.began(item.progress.pass.index, item.portal.prepared.statement);
        this.#answers.add(reply, item.portal.plan, item.progress, { status, rows: 0, bytes: 0, tag: null, sqlState });
        return;
      case "execute":
        this.#unexecuted.delete(item.portal);
        this.#answers.add(reply, item.portal.plan, item.progress, {
          status,
          rows: item.rows,
          bytes: item.bytes,
          tag: null,
          sqlState,
        });
        return;
      case "close":
        item.change?.undo();
        this.#answers.add(reply, openPlan, null);
        return;
      case "describe":
        this.#answers.add(reply, item.plan, null);
        return;
      default:
        item satisfies never;
    }
  }

  /** After an error PostgreSQL skips to the next Sync: conclude what it will not answer. */
  #skipGroup(): void {
    this.#skipping = true;
    this.#discardSkipped();
  }

  #discardSkipped(): void {
    const skipped: Item[] = [];
    for (;;) {
      const item = this.#items.oldest();
      if (item === undefined || item.kind === "sync") {
        break;
      }
      this.#items.pop();
      skipped.push(item);
    }
    // Newest first, so that a name changed twice gets back what it meant before both.
    for (const item of skipped.toReversed()) {
      if (item.kind === "parse" || item.kind === "bind" || item.kind === "close" || item.kind === "query") {
        item.change?.undo();
      }
    }
    for (const item of skipped) {
      if (item.kind === "query") {
        for (const progress of item.progresses) {
          this.#answers.conclude(progress, "skipped", 0, 0);
        }
      } else if (item.kind === "execute") {
        this.#unexecuted.delete(item.portal);
        this.#answers.conclude(item.progress, "skipped", 0, 0);
      } else if (item.kind === "bind") {
        this.#unexecuted.set(item.portal, item.progress);
      }
    }
  }

  #ready(frame: Frame): void {
    if (this.#skipping) {
      this.#discardSkipped();
    }
    const item = this.#oldest();
    if (item.kind !== "sync" && item.kind !== "query" && !(item.kind === "denied" && item.cycle === "simple")) {
      throw unexpected("ReadyForQuery", item);
    }
    if (item.kind === "query" && item.current < item.progresses.length) {
      throw new InvariantError("the resource is ready before it has answered every statement");
    }
    this.#skipping = false;
    if (item.kind === "query" && item.change !== null) {
      if (item.failed) {
        item.change.undo();
      } else {
        item.change.settle();
      }
    }
    this.#items.pop();
    this.#status = decodeReadyForQuery(frame.body);
    let end: TransactionEnd | null = null;
    if (this.#status === "idle") {
      this.#endPortals();
      end = this.#transactions.idle();
      // With more under way, one of them may be the BEGIN: it stays until nothing is.
      this.#isSerializable &&= this.#items.length > 0;
    } else {
      this.#transactions.open();
    }
    this.#answers.add({ kind: "plain", bytes: frame.bytes }, openPlan, null, null, end);
  }

  /** Every portal is gone: intents that nothing executed end here. */
  #endPortals(): void {
    for (const [portal, progress] of this.#unexecuted) {
      if (portal.executions === 0) {
        this.#answers.conclude(progress, "skipped", 0, 0);
      }
    }
    this.#unexecuted.clear();
  }

  #progressOf(item: Extract<Item, { kind: "query" | "execute" }>): Progress {
    const progress = item.kind === "execute" ? item.progress : item.progresses[item.current];
    if (progress === undefined) {
      throw unexpected("a row", item);
    }
    return progress;
  }

  #oldest(): Item {
    const item = this.#items.oldest();
    if (item === undefined) {
      throw new InvariantError("the resource answered what was not asked");
    }
    return item;
  }
}
