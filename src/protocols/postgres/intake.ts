/** What the client sends, frame by frame, as units to be decided and control frames to be passed. */
import type { IdSource } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import type { Arrival, UnitRefusal } from "#protocols/driver.ts";
import type { MaskPlan } from "#mask/masker.ts";
import type { Refusal, StatementAnalysis } from "#sql/analysis.ts";
import type { Exchange } from "./exchange.ts";
import type { Frame, FrameReader } from "./frames.ts";
import { decodeBind, decodeExecute, decodeFrontend, decodeParse, decodeQuery } from "./messages-frontend.ts";
import type { BindMessage, ParseMessage } from "./messages-frontend.ts";
import { encodeParse, encodeQuery } from "./messages-encode.ts";
import { frontendTypes } from "./messages-types.ts";
import type { Item } from "./items.ts";
import { Names } from "./names.ts";
import type { NameChange } from "./names.ts";
import { bindPayload, commandFacts, maskPlan, refusal, refusalOfFailure, refusedUnit, spliced } from "./units.ts";
import type { Analyze, Portal, PostgresUnit, Prepared, StatementContext } from "./units.ts";

/** Frames that carry no command. */
export type PostgresControl =
  | { readonly kind: "sync" | "other"; readonly bytes: Buffer; readonly item: Item | null }
  /** Not a frame: waits until what a name means upstream is known. */
  | { readonly kind: "settle"; readonly isSettled: () => boolean };

export interface IntakeParts {
  readonly clientReader: FrameReader;
  readonly exchange: Exchange;
  readonly analyze: Analyze;
  /** The catalog and scope in force now. */
  readonly context: () => StatementContext;
  readonly ids: IdSource;
  /** Whether a setting may be set through a bound `set_config` to this value. */
  readonly isAllowedSetting: (name: string) => boolean;
  readonly ended: () => boolean;
}

const emptyPlan: MaskPlan = { columns: null, outputs: [], touchesMasked: false };

export class Intake {
  readonly #parts: IntakeParts;
  readonly #statements = new Names<Prepared>();
  readonly #portals = new Names<Portal>();
  /** Counts Syncs and Queries: changes of names within one group need not wait for one another. */
  #group = 0;
  #skipToSync = false;
  #terminated = false;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
  }

  /** The client said Terminate. */
  get terminated(): boolean {
    return this.#terminated;
  }

  /** After a denial in the extended protocol everything up to the next Sync is skipped, as PostgreSQL does after an error. */
  skipToSync(): void {
    this.#skipToSync = true;
  }

  synced(): void {
    this.#skipToSync = false;
  }

  /** A Sync or a Query went upstream: a new group begins. */
  forwardedCycle(): void {
    this.#group++;
  }

  defineStatement(name: string, statement: Prepared): NameChange {
    return this.#statements.change(name, statement, this.#group);
  }

  definePortal(name: string, portal: Portal): NameChange {
    return this.#portals.change(name, portal, this.#group);
  }

  /** Reads what has been pushed. @throws SallyportError when the client breaks the protocol. */
  *arrivals(): Generator<Arrival<PostgresUnit, PostgresControl>> {
    for (;;) {
      if (this.#terminated) {
        return;
      }
      const frame = this.#parts.clientReader.next();
      if (frame === null) {
        return;
      }
      yield* this.#arrive(frame);
    }
  }

  *#arrive(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    if (this.#skipToSync && frame.type !== frontendTypes.sync && frame.type !== frontendTypes.terminate) {
      return;
    }
    switch (frame.type) {
      case frontendTypes.query:
        yield { kind: "unit", unit: this.#query(frame) };
        return;
      case frontendTypes.parse:
        yield* this.#parse(frame);
        return;
      case frontendTypes.bind:
        yield* this.#bind(frame);
        return;
      case frontendTypes.execute:
        yield* this.#execute(frame);
        return;
      case frontendTypes.describe:
      case frontendTypes.close:
        yield* this.#target(frame);
        return;
      case frontendTypes.sync:
        decodeFrontend(frame);
        this.#skipToSync = false;
        yield { kind: "control", control: { kind: "sync", bytes: frame.bytes, item: { kind: "sync" } } };
        return;
      case frontendTypes.flush:
        decodeFrontend(frame);
        yield { kind: "control", control: { kind: "other", bytes: frame.bytes, item: null } };
        return;
      case frontendTypes.terminate:
        this.#terminated = true;
        break;
      case frontendTypes.copyData:
      case frontendTypes.copyDone:
      case frontendTypes.copyFail:
        // Outside COPY, which is denied, PostgreSQL reads past these; they go nowhere.
        break;
      case frontendTypes.functionCall:
        yield this.#refused("simple", refusal("protocol.unsupported", ...noFastPath));
        return;
      default:
        yield this.#refused("simple", refusal("protocol.violation", ...notNow));
    }
  }

  #query(frame: Frame): PostgresUnit {
    let message;
    try {
      message = decodeQuery(frame.body);
    } catch (error) {
      return refusedUnit("simple", refusalOfFailure(error));
    }
    const result = this.#parts.analyze(message.text, this.#parts.context());
    if (result.refused) {
      return refusedUnit("simple", unitRefusal(result, { statement: message.text }), result.statements);
    }
    const { statements } = result;
    const setting = statements.find((statement) => statement.boundSettings.length > 0);
    if (setting !== undefined) {
      return refusedUnit("simple", refusal("grant.no-session-setting", ...settingNeedsBind));
    }
    const rewritten = spliced(message.textBytes, statements);
    const commands = commandFacts(statements, message.text, rewritten?.toString("utf8") ?? null, this.#parts.ids);
    return {
      message: "query",
      stage: "run",
      prepared: null,
      commands,
      size: commands.length,
      refusal: null,
      plans: statements.map((statement) => maskPlan(statement)),
      statements,
      bytes: rewritten === null ? frame.bytes : encodeQuery(rewritten),
    };
  }

  *#parse(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    let message: ParseMessage;
    try {
      message = decodeParse(frame.body);
    } catch (error) {
      yield this.#refused("extended", refusalOfFailure(error));
      return;
    }
    yield* this.#settle(this.#statements, message.statement);
    if (message.statement !== "" && this.#statements.get(message.statement) !== undefined) {
      yield this.#refused("extended", refusal("statement.already-prepared", ...alreadyPrepared));
      return;
    }
    if (this.#statements.size >= limits.preparedStatementsMax) {
      yield this.#refused("extended", refusal("limit.exceeded", ...tooManyStatements));
      return;
    }
    yield { kind: "unit", unit: this.#parseUnit(frame, message) };
  }

  #parseUnit(frame: Frame, message: ParseMessage): PostgresUnit {
    const context = this.#parts.context();
    const result = this.#parts.analyze(message.text, context);
    if (result.refused) {
      return refusedUnit("extended", unitRefusal(result, { statement: message.text }), result.statements);
    }
    const [statement, second] = result.statements;
    if (statement === undefined || second !== undefined) {
      return refusedUnit(
        "extended",
        { ...refusal("statement.syntax", ...oneStatement), payload: { statement: message.text } },
        result.statements.length,
      );
    }
    const rewritten = spliced(message.textBytes, [statement]);
    const prepared: Prepared = {
      text: message.text,
      statement,
      plan: maskPlan(statement),
      catalogVersion: context.catalog.version,
      pass: null,
    };
    return {
      message: "parse",
      stage: "prepare",
      prepared: null,
      commands: commandFacts([statement], message.text, rewritten?.toString("utf8") ?? null, this.#parts.ids).map(
        // Preparing changes nothing, whatever the statement will do when it runs.
        (facts) => ({ ...facts, pure: true }),
      ),
      size: 1,
      refusal: null,
      name: message.statement,
      statement: prepared,
      bytes:
        rewritten === null
          ? frame.bytes
          : encodeParse({ statement: message.statement, text: rewritten, parameterTypes: message.parameterTypes }),
    };
  }

  *#bind(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    let message: BindMessage;
    try {
      message = decodeBind(frame.body);
    } catch (error) {
      yield this.#refused("extended", refusalOfFailure(error));
      return;
    }
    yield* this.#settle(this.#statements, message.statement);
    yield* this.#settle(this.#portals, message.portal);
    const prepared = this.#statements.get(message.statement);
    if (prepared === undefined) {
      yield this.#refused("extended", refusal("statement.not-prepared", ...notPrepared));
      return;
    }
    const values = bindPayload(message);
    const problem = this.#stillMeans(prepared) ?? this.#boundSettings(prepared.statement, message);
    if (problem !== null) {
      yield this.#refused("extended", { ...problem, payload: { statement: prepared.text, values } });
      return;
    }
    if (this.#portals.size >= limits.portalsMax) {
      yield this.#refused("extended", refusal("limit.exceeded", ...tooManyPortals));
      return;
    }
    const [facts] = commandFacts([prepared.statement], prepared.text, null, this.#parts.ids);
    if (facts === undefined) {
      return;
    }
    // The text stands with the Parse; what is new here are the values.
    const command = { ...facts, payload: { values } };
    const portal: Portal = { facts: command, prepared, plan: prepared.plan, pass: null, executions: 0 };
    yield {
      kind: "unit",
      unit: {
        message: "bind",
        stage: "run",
        prepared: prepared.pass?.index ?? null,
        commands: [command],
        size: 1,
        refusal: null,
        name: message.portal,
        portal,
        bytes: frame.bytes,
      },
    };
  }

  *#execute(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    const message = decodeExecute(frame.body);
    yield* this.#settle(this.#portals, message.portal);
    const portal = this.#portals.get(message.portal);
    const pass = portal?.pass ?? null;
    if (portal === undefined || pass === null) {
      yield this.#refused("extended", refusal("statement.no-portal", ...noPortal));
      return;
    }
    const problem = this.#stillMeans(portal.prepared);
    if (problem !== null) {
      yield this.#refused("extended", { ...problem, payload: { statement: portal.prepared.text } });
      return;
    }
    const unit: PostgresUnit = {
      message: "execute",
      stage: "run",
      prepared: portal.prepared.pass?.index ?? null,
      commands: [portal.facts],
      size: 1,
      refusal: null,
      portal,
      bytes: frame.bytes,
    };
    yield { kind: "continue", unit, pass };
  }

  *#target(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    const message = decodeFrontend(frame);
    if (message.kind !== "describe" && message.kind !== "close") {
      return;
    }
    if (this.#parts.ended()) {
      yield this.#refused("extended", refusal("grant.revoked", ...over));
      return;
    }
    const names = message.target === "statement" ? this.#statements : this.#portals;
    yield* this.#settle(names, message.name);
    if (message.kind === "close") {
      const change =
        message.target === "statement"
          ? this.#statements.change(message.name, undefined, this.#group)
          : this.#portals.change(message.name, undefined, this.#group);
      yield { kind: "control", control: { kind: "other", bytes: frame.bytes, item: { kind: "close", change } } };
      return;
    }
    const plan =
      (message.target === "statement"
        ? this.#statements.get(message.name)?.plan
        : this.#portals.get(message.name)?.plan) ?? emptyPlan;
    yield {
      kind: "control",
      control: { kind: "other", bytes: frame.bytes, item: { kind: "describe", plan, rewritten: false } },
    };
  }

  /** Asks the relay to wait when an earlier group may still change what `name` means upstream. */
  *#settle(
    names: { isSettled(name: string, group: number): boolean },
    name: string,
  ): Generator<Arrival<PostgresUnit, PostgresControl>> {
    const group = this.#group;
    if (!names.isSettled(name, group)) {
      yield { kind: "control", control: { kind: "settle", isSettled: () => names.isSettled(name, group) } };
    }
  }

  /**
   * What was decided is checked again at every run: the meaning of a statement is bound late, and the catalog may have changed.
   * Null when the statement still means the same.
   */
  #stillMeans(prepared: Prepared): UnitRefusal | null {
    const context = this.#parts.context();
    if (context.catalog.version === prepared.catalogVersion) {
      return null;
    }
    const again = this.#parts.analyze(prepared.text, context);
    if (again.refused) {
      return unitRefusal(again, {});
    }
    if (JSON.stringify(again.statements) !== JSON.stringify([prepared.statement])) {
      return refusal("statement.changed", ...changed);
    }
    prepared.catalogVersion = context.catalog.version;
    return null;
  }

  /** `set_config($1, …)`: the name arrives only now. */
  #boundSettings(statement: StatementAnalysis, message: BindMessage): UnitRefusal | null {
    for (const { nameParameter } of statement.boundSettings) {
      const value = message.values[nameParameter - 1];
      const name = value === undefined || value === null ? null : value.toString("utf8");
      if (name === null || !this.#parts.isAllowedSetting(name)) {
        return refusal(
          "grant.no-session-setting",
          `a session may not change ${name === null ? "an unnamed setting" : `the setting "${name.slice(0, 63)}"`}`,
          "Leave the setting as it is; the grant pins it.",
        );
      }
    }
    return null;
  }

  #refused(cycle: "simple" | "extended", why: UnitRefusal): Arrival<PostgresUnit, PostgresControl> {
    return { kind: "unit", unit: refusedUnit(cycle, why) };
  }
}

function unitRefusal(result: Refusal, payload: { readonly [name: string]: string }): UnitRefusal {
  const { code, reason, nextStep, effects, statement } = result;
  return { code, reason, nextStep, effects, ordinal: statement, payload };
}

type Words = readonly [reason: string, nextStep: string];
const noFastPath: Words = [
  "function calls by object id (the fast path) are not supported",
  "Call the function in SQL.",
];
const notNow: Words = [
  "this message has no place here",
  "Send Query, Parse, Bind, Describe, Execute, Close, Flush or Sync.",
];
const alreadyPrepared: Words = ["a prepared statement of this name exists", "Close it first, or use another name."];
const notPrepared: Words = ["no prepared statement of this name exists", "Parse it first."];
const noPortal: Words = ["no portal of this name exists", "Bind it first."];
const tooManyStatements: Words = [
  `a session may hold ${limits.preparedStatementsMax} prepared statements`,
  "Close those that are no longer needed.",
];
const tooManyPortals: Words = [
  `a session may hold ${limits.portalsMax} portals`,
  "Close those that are no longer needed.",
];
const oneStatement: Words = ["a prepared statement holds one command", "Send each statement by itself."];
const settingNeedsBind: Words = [
  "set_config needs the setting's name in the statement",
  "Name the setting as a literal.",
];
const changed: Words = ["the database's schema changed since this was prepared", "Prepare the statement again."];
const over: Words = ["the grant has ended", "Ask for a new grant."];
