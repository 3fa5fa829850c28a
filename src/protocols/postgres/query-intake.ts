/** The simple protocol: a Query with its statements, PREPARE, EXECUTE and DEALLOCATE among them. */
import { limits } from "#domain/limits.ts";
import type { Arrival, UnitRefusal } from "#protocols/driver.ts";
import type { StatementAnalysis } from "#sql/analysis.ts";
import type { Frame } from "./frames.ts";
import type { IntakeParts, PostgresControl } from "./intake.ts";
import {
  alreadyPrepared,
  namedAlone,
  notPrepared,
  settingNeedsBind,
  tooManyStatements,
  unitRefusal,
} from "./intake-words.ts";
import { encodeQuery } from "./messages-encode.ts";
import { decodeQuery } from "./messages-frontend.ts";
import type { QueryMessage } from "./messages-frontend.ts";
import type { NameChange } from "./names.ts";
import type { SessionNames } from "./session-names.ts";
import { commandFacts, makesSerializable, maskPlan, refusal, refusalOfFailure, refusedUnit, spliced } from "./units.ts";
import type { PostgresUnit, Prepared } from "./units.ts";

export class QueryIntake {
  readonly #parts: IntakeParts;
  readonly #names: SessionNames;

  constructor(parts: IntakeParts, names: SessionNames) {
    this.#parts = parts;
    this.#names = names;
  }

  /** A Query frame. */
  *arrivals(frame: Frame): Generator<Arrival<PostgresUnit, PostgresControl>> {
    let message: QueryMessage;
    try {
      message = decodeQuery(frame.body);
    } catch (error) {
      yield refused(refusalOfFailure(error));
      return;
    }
    const result = this.#parts.analyze(message.text, this.#parts.context());
    if (result.refused) {
      yield {
        kind: "unit",
        unit: refusedUnit("simple", unitRefusal(result, { statement: message.text }), result.statements),
      };
      return;
    }
    const { statements } = result;
    const [first] = statements;
    const payload = { statement: message.text };
    if (statements.some((statement) => statement.boundSettings.length > 0)) {
      yield refused({ ...refusal("grant.no-session-setting", ...settingNeedsBind), payload });
    } else if (first === undefined || statements.every((statement) => statement.named === null)) {
      yield { kind: "unit", unit: this.#queryUnit(frame, message, statements, null) };
    } else if (statements.length > 1) {
      yield refused({ ...refusal("statement.unsupported", ...namedAlone), payload });
    } else {
      yield* this.#namedQuery(frame, message, first);
    }
  }

  /** PREPARE, EXECUTE and DEALLOCATE in SQL, which share their names with Parse, Bind and Close. */
  *#namedQuery(
    frame: Frame,
    message: QueryMessage,
    statement: StatementAnalysis,
  ): Generator<Arrival<PostgresUnit, PostgresControl>> {
    const { named } = statement;
    if (named === null) {
      return;
    }
    if (named.action === "deallocate-all") {
      const group = this.#names.group;
      yield { kind: "control", control: { kind: "settle", isSettled: () => this.#names.statements.areSettled(group) } };
      const change = (): NameChange => this.#names.statements.clear(this.#names.group);
      yield { kind: "unit", unit: this.#queryUnit(frame, message, [statement], { prepared: null, change }) };
      return;
    }
    const { name } = named;
    yield* this.#names.settle(this.#names.statements, name);
    const known = this.#names.statements.get(name);
    const payload = { statement: message.text };
    if (named.action === "prepare") {
      if (known !== undefined || this.#names.statements.size >= limits.preparedStatementsMax) {
        const why =
          known === undefined
            ? refusal("limit.exceeded", ...tooManyStatements)
            : refusal("statement.already-prepared", ...alreadyPrepared);
        yield refused({ ...why, payload });
        return;
      }
      yield { kind: "unit", unit: this.#prepareUnit(frame, message, { statement, name }) };
      return;
    }
    const problem =
      known === undefined ? refusal("statement.not-prepared", ...notPrepared) : this.#names.stillMeans(known);
    if (known === undefined || problem !== null) {
      yield refused({ ...(problem ?? refusal("statement.not-prepared", ...notPrepared)), payload });
    } else if (named.action === "deallocate") {
      const change = (): NameChange => this.#names.statements.change(name, undefined, this.#names.group);
      yield { kind: "unit", unit: this.#queryUnit(frame, message, [statement], { prepared: null, change }) };
    } else if (known.statement.boundSettings.length > 0) {
      // The arguments of EXECUTE are expressions: what they would set is not known before they run.
      yield refused({ ...refusal("grant.no-session-setting", ...settingNeedsBind), payload });
    } else {
      const run = { ...known.statement, splices: [], effects: [...known.statement.effects, ...statement.effects] };
      const unit = this.#queryUnit(frame, message, [run], null);
      yield { kind: "unit", unit: { ...unit, prepared: known.pass?.index ?? null } };
    }
  }

  #prepareUnit(
    frame: Frame,
    message: QueryMessage,
    what: { readonly statement: StatementAnalysis; readonly name: string },
  ): PostgresUnit {
    const { statement, name } = what;
    const prepared: Prepared = {
      text: message.text,
      statement,
      plan: maskPlan(statement),
      catalogVersion: this.#parts.context().catalog.version,
      pass: null,
    };
    const change = (): NameChange => this.#names.statements.change(name, prepared, this.#names.group);
    const unit = this.#queryUnit(frame, message, [statement], { prepared, change });
    // Preparing runs nothing and returns no rows, whatever the statement will do when it is executed.
    return {
      ...unit,
      stage: "prepare",
      commands: unit.commands.map((facts) => ({ ...facts, pure: true })),
      statements: [{ ...statement, pure: true, transaction: null }],
      plans: [{ columns: 0, outputs: [], touchesMasked: statement.touchesMasked }],
    };
  }

  #queryUnit(
    frame: Frame,
    message: QueryMessage,
    statements: readonly StatementAnalysis[],
    named: Extract<PostgresUnit, { message: "query" }>["named"],
  ): Extract<PostgresUnit, { message: "query" }> {
    const rewritten = spliced(message.textBytes, statements);
    const arriving = {
      text: message.text,
      rewritten: rewritten?.toString("utf8") ?? null,
      serializable: this.#parts.exchange.isSerializable || statements.some(makesSerializable),
    };
    const commands = commandFacts(statements, arriving, this.#parts.ids);
    return {
      message: "query",
      stage: "run",
      prepared: null,
      commands,
      size: commands.length,
      refusal: null,
      plans: statements.map((statement) => maskPlan(statement)),
      statements,
      named,
      bytes: rewritten === null ? frame.bytes : encodeQuery(rewritten),
    };
  }
}

function refused(why: UnitRefusal): Arrival<PostgresUnit, PostgresControl> {
  return { kind: "unit", unit: refusedUnit("simple", why) };
}
