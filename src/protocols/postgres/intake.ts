/** What the client sends, frame by frame, as units to be decided and control frames to be passed. */
import type { IdSource } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import type { Arrival, UnitRefusal } from "#protocols/driver.ts";
import type { MaskPlan } from "#mask/masker.ts";
import type { StatementAnalysis } from "#sql/analysis.ts";
import { checkSetting } from "#sql/settings.ts";
import { isParameterTypeAllowed } from "#sql/types.ts";
import type { Exchange } from "./exchange.ts";
import type { Frame, FrameReader } from "./frames.ts";
import { decodeBind, decodeExecute, decodeFrontend, decodeParse } from "./messages-frontend.ts";
import type { BindMessage, ParseMessage } from "./messages-frontend.ts";
import {
  alreadyPrepared,
  namedSimple,
  nameTooLong,
  noFastPath,
  noPortal,
  notNow,
  notPrepared,
  oneStatement,
  over,
  parameterType,
  tooManyPortals,
  tooManyStatements,
  unitRefusal,
} from "./intake-words.ts";
import { encodeParse } from "./messages-encode.ts";
import { frontendTypes } from "./messages-types.ts";
import type { Item } from "./items.ts";
import { isTooLongName } from "./names.ts";
import type { NameChange } from "./names.ts";
import { QueryIntake } from "./query-intake.ts";
import { SessionNames } from "./session-names.ts";
import {
  bindPayload,
  commandFacts,
  maskPlan,
  refusal,
  refusalOfFailure,
  refusedUnit,
  spliced,
  makesSerializable,
  textValue,
} from "./units.ts";
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
  readonly ended: () => boolean;
}

const emptyPlan: MaskPlan = { columns: null, outputs: [], touchesMasked: false };

export class Intake {
  readonly #parts: IntakeParts;
  readonly #names: SessionNames;
  readonly #queries: QueryIntake;
  #skipToSync = false;
  #terminated = false;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
    this.#names = new SessionNames(parts);
    this.#queries = new QueryIntake(parts, this.#names);
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
    this.#names.group++;
  }

  defineStatement(name: string, statement: Prepared): NameChange {
    return this.#names.statements.change(name, statement, this.#names.group);
  }

  definePortal(name: string, portal: Portal): NameChange {
    return this.#names.portals.change(name, portal, this.#names.group);
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
        yield* this.#queries.arrivals(frame);
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

  *#parse(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    let message: ParseMessage;
    try {
      message = decodeParse(frame.body);
    } catch (error) {
      yield this.#refused("extended", refusalOfFailure(error));
      return;
    }
    if (isTooLongName(message.statement)) {
      yield this.#refused("extended", refusal("limit.exceeded", ...nameTooLong));
      return;
    }
    yield* this.#names.settle(this.#names.statements, message.statement);
    if (message.statement !== "" && this.#names.statements.get(message.statement) !== undefined) {
      yield this.#refused("extended", refusal("statement.already-prepared", ...alreadyPrepared));
      return;
    }
    if (this.#names.statements.size >= limits.preparedStatementsMax) {
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
    if (statement.named !== null) {
      const why = { ...refusal("statement.unsupported", ...namedSimple), payload: { statement: message.text } };
      return refusedUnit("extended", why);
    }
    const undeclarable = message.parameterTypes.find((oid) => !isParameterTypeAllowed(oid, context.catalog));
    if (undeclarable !== undefined) {
      const why = { ...refusal("name.unsupported-form", ...parameterType), payload: { statement: message.text } };
      return refusedUnit("extended", why);
    }
    const rewritten = spliced(message.textBytes, [statement]);
    const arriving = { text: message.text, rewritten: rewritten?.toString("utf8") ?? null, serializable: false };
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
      commands: commandFacts([statement], arriving, this.#parts.ids).map(
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
    if (isTooLongName(message.statement) || isTooLongName(message.portal)) {
      yield this.#refused("extended", refusal("limit.exceeded", ...nameTooLong));
      return;
    }
    yield* this.#names.settle(this.#names.statements, message.statement);
    yield* this.#names.settle(this.#names.portals, message.portal);
    const prepared = this.#names.statements.get(message.statement);
    if (prepared === undefined) {
      yield this.#refused("extended", refusal("statement.not-prepared", ...notPrepared));
      return;
    }
    const values = bindPayload(message);
    const problem = this.#names.stillMeans(prepared) ?? this.#boundSettings(prepared.statement, message);
    if (problem !== null) {
      yield this.#refused("extended", { ...problem, payload: { statement: prepared.text, values } });
      return;
    }
    if (this.#names.portals.size >= limits.portalsMax) {
      yield this.#refused("extended", refusal("limit.exceeded", ...tooManyPortals));
      return;
    }
    const [facts] = commandFacts(
      [prepared.statement],
      {
        text: prepared.text,
        rewritten: null,
        serializable: this.#parts.exchange.isSerializable || makesSerializable(prepared.statement),
      },
      this.#parts.ids,
    );
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
    if (isTooLongName(message.portal)) {
      yield this.#refused("extended", refusal("limit.exceeded", ...nameTooLong));
      return;
    }
    yield* this.#names.settle(this.#names.portals, message.portal);
    const portal = this.#names.portals.get(message.portal);
    const pass = portal?.pass ?? null;
    if (portal === undefined || pass === null) {
      yield this.#refused("extended", refusal("statement.no-portal", ...noPortal));
      return;
    }
    const problem = this.#names.stillMeans(portal.prepared);
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
    if (isTooLongName(message.name)) {
      yield this.#refused("extended", refusal("limit.exceeded", ...nameTooLong));
      return;
    }
    if (this.#parts.ended()) {
      yield this.#refused("extended", refusal("grant.revoked", ...over));
      return;
    }
    const names = message.target === "statement" ? this.#names.statements : this.#names.portals;
    yield* this.#names.settle(names, message.name);
    if (message.kind === "close") {
      const change =
        message.target === "statement"
          ? this.#names.statements.change(message.name, undefined, this.#names.group)
          : this.#names.portals.change(message.name, undefined, this.#names.group);
      yield { kind: "control", control: { kind: "other", bytes: frame.bytes, item: { kind: "close", change } } };
      return;
    }
    const plan =
      (message.target === "statement"
        ? this.#names.statements.get(message.name)?.plan
        : this.#names.portals.get(message.name)?.plan) ?? emptyPlan;
    yield {
      kind: "control",
      control: { kind: "other", bytes: frame.bytes, item: { kind: "describe", plan, rewritten: false } },
    };
  }

  /** `set_config($1, $2, …)`: name and value arrive only now. A value that is not plain text is not looked into. */
  #boundSettings(statement: StatementAnalysis, message: BindMessage): UnitRefusal | null {
    for (const { nameParameter, valueParameter } of statement.boundSettings) {
      const name = textValue(message, nameParameter - 1);
      const value = textValue(message, valueParameter - 1);
      if (name === null || value === null || !checkSetting(name, value)) {
        return refusal(
          "grant.no-session-setting",
          `a session may not give ${name === null ? "an unnamed setting" : `the setting "${name.slice(0, 63)}"`} this value`,
          "Leave the setting as it is; the grant pins it. Timeouts can be lowered.",
        );
      }
    }
    return null;
  }

  #refused(cycle: "simple" | "extended", why: UnitRefusal): Arrival<PostgresUnit, PostgresControl> {
    return { kind: "unit", unit: refusedUnit(cycle, why) };
  }
}
