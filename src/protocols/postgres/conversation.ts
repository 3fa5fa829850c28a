/**
 * One client's conversation in protocol 3.0, from ReadyForQuery to the end.
 *
 *   client                 gateway                              PostgreSQL
 *     │  Query "select …"    │  analyse, decide, record             │
 *     │ ────────────────────>│  Query (spliced, or as it came)      │
 *     │                      │ ────────────────────────────────────>│
 *     │                      │  RowDescription, DataRow…, Complete  │
 *     │  masked, once durable│ <────────────────────────────────────│
 *     │ <────────────────────│                                      │
 *     │  Query "drop …"      │  denied, recorded                    │
 *     │ ────────────────────>│  Query "SALLYPORT DENIED dec_…"      │
 *     │                      │ ────────────────────────────────────>│
 *     │  ERROR, in our words │  ERROR 42601, ReadyForQuery          │
 *     │ <────────────────────│ <────────────────────────────────────│
 *
 * A denied message is replaced by one that must fail, so that upstream's transaction fails with it and its ReadyForQuery is true.
 */
import type { Allow, Deny } from "#domain/decision.ts";
import type { Outcome } from "#domain/outcome.ts";
import { InvariantError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import { assertGenuine } from "#ledger/recorded.ts";
import type { Recorded } from "#ledger/recorded.ts";
import { assertMasked } from "#mask/masker.ts";
import type { Masked } from "#mask/masker.ts";
import type {
  Answer,
  Arrival,
  ClosingWords,
  Conversation,
  Downstream,
  Pass,
  Progress,
  Upstream,
} from "#protocols/driver.ts";
import type { Channel } from "./channel.ts";
import { refusalFields } from "./refusal.ts";
import { Exchange } from "./exchange.ts";
import type { FrameReader } from "./frames.ts";
import { Intake } from "./intake.ts";
import type { Item } from "./items.ts";
import type { IntakeParts, PostgresControl } from "./intake.ts";
import { countCells } from "./messages-backend.ts";
import {
  encodeErrorResponse,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeReadyForQuery,
  encodeTerminate,
} from "./messages-encode.ts";
import type { Report } from "./messages-encode.ts";
import { backendTypes } from "./messages-types.ts";
import { replyCodec } from "./reply.ts";
import type { PostgresReply } from "./reply.ts";
import type { PostgresUnit } from "./units.ts";

export interface ConversationParts extends Omit<IntakeParts, "exchange" | "ended"> {
  readonly client: Channel;
  readonly clientReader: FrameReader;
  readonly resource: Channel;
  readonly resourceReader: FrameReader;
  readonly nowUs: () => number;
}

/** Never made: its Parse fails. A name of its own, so that the unnamed statement is left alone. */
const deniedName = "sallyport denied";

/** How long a closing client may take to read its last message. */
const closeGraceMs = 2000;

export class PostgresConversation implements Conversation<PostgresUnit, PostgresControl, PostgresReply> {
  readonly codec = replyCodec;
  readonly upstream: Upstream<PostgresUnit, PostgresControl>;
  readonly downstream: Downstream<PostgresUnit, PostgresReply>;
  readonly #parts: ConversationParts;
  readonly #exchange = new Exchange();
  readonly #intake: Intake;
  #ended: ClosingWords | null = null;
  #wakeOwn: (() => void) | null = null;
  #closed = false;
  #clientUnread: boolean;
  #resourceUnread: boolean;

  constructor(parts: ConversationParts) {
    this.#parts = parts;
    this.#clientUnread = parts.clientReader.bufferedBytes > 0;
    this.#resourceUnread = parts.resourceReader.bufferedBytes > 0;
    this.#intake = new Intake({ ...parts, exchange: this.#exchange, ended: () => this.#ended !== null });
    this.upstream = {
      send: (unit, passes) => this.#send(unit, passes),
      control: (control) => this.#control(control),
    };
    this.downstream = {
      release: (reply, record, done) => this.#release(reply, record, done),
      pass: (reply) => this.#pass(reply),
      refuse: (unit, denial) => this.#refuse(unit, denial),
    };
  }

  async arrivals(): Promise<Iterable<Arrival<PostgresUnit, PostgresControl>> | null> {
    const { client, clientReader } = this.#parts;
    while (this.#exchange.length >= limits.pipelineCommandsMax && !this.#closed) {
      // PostgreSQL keeps its answers to itself until it is asked to flush, and this client may not ask for a long while.
      await this.#flush();
      await this.#exchange.changed();
    }
    if (this.#clientUnread) {
      // What came together with the last message of the handshake.
      this.#clientUnread = false;
      return this.#intake.arrivals();
    }
    // Terminate is an end whether or not the client closes its socket: what it holds upstream is let go.
    const chunks = this.#intake.terminated ? null : await client.read();
    if (chunks === null) {
      return null;
    }
    for (const chunk of chunks) {
      clientReader.push(chunk);
    }
    return this.#intake.arrivals();
  }

  async #flush(): Promise<void> {
    if (this.#ended === null) {
      await this.#parts.resource.write(encodeFlush());
    }
  }

  async answers(): Promise<Iterable<Answer<PostgresReply>> | null> {
    const { resource, resourceReader } = this.#parts;
    if (this.#resourceUnread) {
      this.#resourceUnread = false;
      return this.#readAnswers();
    }
    const chunks = this.#ended === null ? await resource.read() : null;
    if (this.#ended !== null) {
      return this.#ownAnswers();
    }
    if (chunks === null) {
      return null;
    }
    for (const chunk of chunks) {
      resourceReader.push(chunk);
    }
    return this.#readAnswers();
  }

  /** Once the resource's side has ended, answers are the gateway's own; they take the same way out, in order. */
  async #ownAnswers(): Promise<Iterable<Answer<PostgresReply>> | null> {
    for (;;) {
      const answers = this.#exchange.take();
      if (answers.length > 0) {
        return answers;
      }
      if (this.#closed) {
        return null;
      }
      await new Promise<void>((resolve) => {
        this.#wakeOwn = resolve;
      });
    }
  }

  #answerOwn(...frames: readonly Buffer[]): void {
    this.#exchange.answer(Buffer.concat(frames));
    this.#wakeOwn?.();
  }

  *#readAnswers(): Generator<Answer<PostgresReply>> {
    const { resourceReader } = this.#parts;
    for (;;) {
      if (this.#ended !== null) {
        yield* this.#exchange.take();
        return;
      }
      let columns = -1;
      const run = resourceReader.nextRun(backendTypes.dataRow, limits.releaseBytesMax, (chunk, start, end) => {
        const cells = countCells(chunk, start, end);
        if (columns !== -1 && columns !== cells) {
          throw new InvariantError("the rows of one result differ in their number of columns");
        }
        columns = cells;
      });
      if (run !== null) {
        this.#exchange.rows(run, columns);
      } else {
        const frame = resourceReader.next();
        if (frame === null) {
          return;
        }
        if (frame.type === backendTypes.dataRow) {
          this.#exchange.rows({ frames: 1, bytes: frame.bytes }, countCells(frame.body));
        } else {
          this.#exchange.frame(frame);
        }
      }
      yield* this.#exchange.take();
    }
  }

  unfinished(): readonly Progress[] {
    return this.#exchange.unfinished();
  }

  endUpstream(words: ClosingWords): void {
    if (this.#ended !== null || this.#closed) {
      return;
    }
    this.#ended = words;
    const insideGroup = this.#exchange.abort(encodeErrorResponse(endedReport(words)), encodeReadyForQuery("idle"));
    if (insideGroup) {
      this.#intake.skipToSync();
    }
    this.#parts.resource.destroy();
    this.#parts.client.nudge();
  }

  async close(last: ClosingWords | null): Promise<void> {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    this.#wakeOwn?.();
    const { client, resource } = this.#parts;
    if (this.#ended === null) {
      await resource.close(encodeTerminate(), 0);
    }
    resource.destroy();
    await client.close(
      last === null ? null : encodeErrorResponse(refusalFields({ ...last, id: last.decision }, "closing")),
      closeGraceMs,
    );
  }

  async #send(unit: PostgresUnit, passes: readonly Pass[]): Promise<void> {
    for (const pass of passes) {
      assertGenuine(pass);
    }
    const [first] = passes;
    if (unit.message === "refused" || first === undefined || passes.length !== Math.max(1, unit.commands.length)) {
      throw new InvariantError("a unit was sent without a pass for each of its commands");
    }
    if (this.#ended !== null) {
      // The grant ended between the decision and now: nothing is sent, and the record says that it did not run.
      this.#answerEnded(unit.message === "query" ? "simple" : "extended", null);
      return;
    }
    this.#push(unit, first, passes);
    await this.#parts.resource.write(unit.bytes);
  }

  #push(unit: Exclude<PostgresUnit, { message: "refused" }>, first: Pass, passes: readonly Pass[]): void {
    const startedUs = this.#parts.nowUs();
    switch (unit.message) {
      case "query": {
        const progresses = unit.commands.map((command, index) => ({
          pass: passes[index] ?? first,
          command: command.id,
          execution: 1,
          startedUs,
        }));
        const { statements, plans } = unit;
        if (unit.named !== null && unit.named.prepared !== null) {
          unit.named.prepared.pass = first;
        }
        const change = unit.named?.change() ?? null;
        const counts = { current: 0, rows: 0, bytes: 0, failed: false };
        this.#ask({ kind: "query", progresses, statements, plans, change, ...counts });
        this.#intake.forwardedCycle();
        return;
      }
      case "parse": {
        unit.statement.pass = first;
        const progress = { pass: first, command: commandId(unit), execution: 1, startedUs };
        const change = this.#intake.defineStatement(unit.name, unit.statement);
        this.#ask({ kind: "parse", progress, plan: unit.statement.plan, change });
        return;
      }
      case "bind": {
        unit.portal.pass = first;
        const progress = { pass: first, command: unit.portal.facts.id, execution: 1, startedUs };
        const change = this.#intake.definePortal(unit.name, unit.portal);
        this.#ask({ kind: "bind", progress, portal: unit.portal, change });
        return;
      }
      case "execute": {
        unit.portal.executions++;
        const progress = {
          pass: first,
          command: unit.portal.facts.id,
          execution: unit.portal.executions,
          startedUs,
        };
        this.#ask({ kind: "execute", progress, portal: unit.portal, rows: 0, bytes: 0 });
        return;
      }
      default:
        unit satisfies never;
    }
  }

  #ask(item: Item): void {
    if (this.#exchange.push(item)) {
      this.#parts.resource.nudge();
    }
  }

  async #control(control: PostgresControl): Promise<void> {
    if (control.kind === "settle") {
      while (!control.isSettled() && this.#ended === null && !this.#closed) {
        await this.#exchange.changed();
      }
      return;
    }
    if (this.#ended !== null) {
      if (control.kind === "sync") {
        this.#intake.synced();
        this.#answerOwn(encodeReadyForQuery("idle"));
      }
      return;
    }
    if (control.item !== null) {
      this.#ask(control.item);
    }
    if (control.kind === "sync") {
      this.#intake.forwardedCycle();
    }
    await this.#parts.resource.write(control.bytes);
  }

  async #release(reply: Masked<PostgresReply>, record: Recorded<Allow>, done: Recorded<Outcome> | null): Promise<void> {
    assertMasked(reply);
    assertGenuine(record);
    if (done !== null) {
      assertGenuine(done);
    }
    await this.#parts.client.write(reply.reply.bytes);
  }

  async #pass(reply: Masked<PostgresReply>): Promise<void> {
    assertMasked(reply);
    await this.#parts.client.write(reply.reply.bytes);
  }

  async #refuse(unit: PostgresUnit, denial: Recorded<Deny>): Promise<void> {
    assertGenuine(denial);
    const cycle = unit.message === "refused" ? unit.cycle : unit.message === "query" ? "simple" : "extended";
    if (this.#ended !== null) {
      this.#answerEnded(cycle, denial.subject);
      return;
    }
    const error = encodeErrorResponse(refusalFields(denial.subject));
    this.#ask({ kind: "denied", cycle, error });
    // It cannot succeed, whatever the session's state: no SQL begins with this word.
    const text = `SALLYPORT DENIED ${denial.subject.id}`;
    if (cycle === "simple") {
      this.#intake.forwardedCycle();
      await this.#parts.resource.write(encodeQuery(text));
    } else {
      this.#intake.skipToSync();
      await this.#parts.resource.write(encodeParse({ statement: deniedName, text, parameterTypes: [] }));
    }
  }

  #answerEnded(cycle: "simple" | "extended", denial: Deny | null): void {
    const words = this.#ended;
    if (words === null) {
      return;
    }
    const error = encodeErrorResponse(denial === null ? endedReport(words) : refusalFields(denial));
    if (cycle === "simple") {
      this.#answerOwn(error, encodeReadyForQuery("idle"));
    } else {
      this.#answerOwn(error);
      this.#intake.skipToSync();
    }
  }
}

function commandId(unit: PostgresUnit): Progress["command"] {
  const [command] = unit.commands;
  if (command === undefined) {
    throw new InvariantError("a unit without a command was sent");
  }
  return command.id;
}

/** What was under way when the session's rights ended is answered as an error of the statement: the client lives on. */
function endedReport(words: ClosingWords): Report {
  return refusalFields({ ...words, id: words.decision }, "session");
}
