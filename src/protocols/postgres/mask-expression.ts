/**
 * The masked value of a column as a SQL expression: what the masked views of a scope compute (MASKING.md, L1 and "Operators").
 *
 * What every expression keeps to:
 * - it has the column's own type (a domain's base type, since a constant may break the domain's rules) and collation;
 * - it never fails, whatever the value is: an error that depends on the value would speak of it;
 * - it depends on no setting of the session, so that a client cannot vary a setting and compare;
 * - NULL stays NULL: that a value is missing is not hidden, what it is, is. A NOT NULL column's `redact` reads nothing at all.
 */
import type { MaskOperator } from "#domain/resource.ts";
import type { QualifiedName } from "#domain/scope.ts";
import { quoteIdentifier } from "#sql/identifier.ts";

/** A column's type as far as its mask needs it. Domains are taken off. */
export interface ColumnType {
  /** `pg_type.typname`, such as `int4`, `varchar`, `citext`. */
  readonly name: string;
  readonly schema: string;
  /** `pg_type.typtype` and `typcategory`. */
  readonly kind: string;
  readonly category: string;
  /** What to cast to: the type with its modifier, qualified where that is needed, such as `character varying(20)`. */
  readonly sql: string;
  /** `atttypmod`, or the domain's; -1 when there is none. */
  readonly modifier: number;
  /** Null for a type without collations. */
  readonly collation: QualifiedName | null;
}

export interface MaskedInput {
  readonly column: string;
  readonly type: ColumnType;
  readonly notNull: boolean;
  /** A virtual generated column is an expression: reading it can fail, so its mask reads nothing. */
  readonly virtual: boolean;
  /** `pg_database.encoding` is UTF8; the mask's dot has no place in most others. */
  readonly unicode: boolean;
}

export interface MaskExpression {
  readonly sql: string;
  /** What is really applied: `redact` where the asked operator does not fit the column's type. */
  readonly operator: MaskOperator;
}

/** How many dots stand for a hidden text, whatever its length. */
const dots = 5;

/**
 * The expression for `operator` on a column. An operator that does not fit the column's type gives `redact`, which always fits
 * and hides more; the returned operator says so.
 */
export function maskExpression(operator: MaskOperator, input: MaskedInput): MaskExpression {
  const computed = input.virtual ? null : computeMask(operator, input);
  if (computed !== null) {
    return { sql: computed, operator };
  }
  if (operator.kind === "null") {
    return { sql: typed("NULL", input.type), operator };
  }
  return { sql: redact(input), operator: { kind: "redact" } };
}

/** Null when the operator does not fit the type, or has a plain constant. */
function computeMask(operator: MaskOperator, input: MaskedInput): string | null {
  switch (operator.kind) {
    case "redact":
    case "null":
      return null;
    case "partial":
      return isText(input.type) ? maskPartly(input, operator.keepLast) : null;
    case "email":
      return isText(input.type) ? maskEmail(input) : null;
    case "date":
      return maskDate(input, operator.precision);
    case "number":
      return operator.roundTo > 0 && Number.isSafeInteger(operator.roundTo)
        ? maskNumber(input, operator.roundTo)
        : null;
    default:
      return operator satisfies never;
  }
}

function isText(type: ColumnType): boolean {
  return type.name === "citext" || (type.schema === "pg_catalog" && ["text", "varchar", "bpchar"].includes(type.name));
}

/** The column's type and collation around an expression. */
function typed(expression: string, { sql, collation }: ColumnType): string {
  const cast = `CAST(${expression} AS ${sql})`;
  return collation === null
    ? cast
    : `${cast} COLLATE ${quoteIdentifier(collation.schema)}.${quoteIdentifier(collation.name)}`;
}

const zeros = new Set(["int2", "int4", "int8", "oid", "numeric", "float4", "float8", "money"]);
/** Constants that nobody takes for a real value. A type that has none becomes NULL. */
const constants: ReadonlyMap<string, string> = new Map([
  ["uuid", "'00000000-0000-0000-0000-000000000000'"],
  ["inet", "'0.0.0.0'"],
  ["cidr", "'0.0.0.0/32'"],
  ["macaddr", "'00:00:00:00:00:00'"],
  ["macaddr8", "'00:00:00:00:00:00:00:00'"],
  ["interval", "'0'"],
  ["char", "'*'"],
]);

function redact(input: MaskedInput): string {
  const constant = redactedConstant(input);
  if (constant === null) {
    return typed("NULL", input.type);
  }
  if (input.notNull || input.virtual) {
    return typed(constant, input.type);
  }
  return typed(`CASE WHEN ${quoteIdentifier(input.column)} IS NULL THEN NULL ELSE ${constant} END`, input.type);
}

/** A constant that the column's type takes, cast where a CASE would otherwise not know its type. */
function redactedConstant({ type, unicode }: MaskedInput): string | null {
  const hidden = hiddenText(unicode);
  if (isText(type)) {
    return `CAST(${hidden} AS pg_catalog.text)`;
  }
  if (type.schema !== "pg_catalog" && type.category !== "A") {
    return null;
  }
  if (type.category === "A") {
    return `CAST('{}' AS ${type.sql})`;
  }
  if (zeros.has(type.name)) {
    return "0";
  }
  switch (type.name) {
    case "name":
      return `CAST(${hidden} AS pg_catalog.name)`;
    case "json":
    case "jsonb":
      return `CAST('"${hidden.slice(1, -1)}"' AS pg_catalog.${type.name})`;
    case "bytea":
      return "pg_catalog.decode('', 'hex')";
    default: {
      const constant = constants.get(type.name);
      return constant === undefined ? null : `CAST(${constant} AS ${type.sql})`;
    }
  }
}

function hiddenText(unicode: boolean): string {
  return `'${(unicode ? "•" : "*").repeat(dots)}'`;
}

/** Letters and digits of ASCII with the separators that numbers and codes are written with; anything else is hidden whole. */
const codePattern = "^[A-Za-z0-9 ()+./_:#-]{1,64}$";

/**
 * Hides letters and digits but the last `keepLast`, and keeps separators. Shows: the length, the separators, the last characters.
 * A value too short for that (fewer than `keepLast` + 4 or twice `keepLast` letters and digits) is hidden whole.
 */
function maskPartly(input: MaskedInput, keepLast: number): string {
  const value = `(CAST(${quoteIdentifier(input.column)} AS pg_catalog.text) COLLATE pg_catalog."C")`;
  const hidden = hiddenText(input.unicode);
  const dot = input.unicode ? "•" : "*";
  const least = Math.max(2 * keepLast, keepLast + 4);
  const long = `pg_catalog.length(pg_catalog.regexp_replace(${value}, '[^A-Za-z0-9]', '', 'g')) >= ${least}`;
  const tail =
    keepLast === 0 ? "''" : `pg_catalog."substring"(${value}, '((?:[A-Za-z0-9][^A-Za-z0-9]*){${keepLast}})$')`;
  const head = `pg_catalog."left"(${value}, pg_catalog.length(${value}) - pg_catalog.length(${tail}))`;
  const masked = `pg_catalog.regexp_replace(${head}, '[A-Za-z0-9]', '${dot}', 'g') || ${tail}`;
  return typed(
    `CASE WHEN ${value} IS NULL THEN NULL WHEN ${value} ~ '${codePattern}' AND ${long} THEN ${masked} ELSE ${hidden} END`,
    input.type,
  );
}

/** Hides the local part at constant length and shows the domain; what is no plain address is hidden whole. */
function maskEmail(input: MaskedInput): string {
  const value = `(CAST(${quoteIdentifier(input.column)} AS pg_catalog.text) COLLATE pg_catalog."C")`;
  const hidden = hiddenText(input.unicode);
  const shown = `${hidden.slice(0, -1)}@' || pg_catalog.split_part(${value}, '@', 2)`;
  return typed(
    `CASE WHEN ${value} IS NULL THEN NULL WHEN ${value} ~ '^[^@"[:space:]]{1,64}@[A-Za-z0-9.-]{1,253}$' THEN ${shown} ELSE ${hidden} END`,
    input.type,
  );
}

/** Years that truncate without overflow in every type; a value outside, or infinite, becomes NULL. */
const firstDay = "0001-01-01";
const lastDay = "9999-12-31";

/**
 * The first moment of the value's year, quarter or month, in UTC: in the session's time zone a client could move the boundary and
 * find the value between two of them.
 */
function maskDate({ column, type }: MaskedInput, precision: string): string | null {
  if (type.schema !== "pg_catalog") {
    return null;
  }
  const value = quoteIdentifier(column);
  const within = (first: string, last: string): string =>
    `${value} BETWEEN CAST('${first}' AS ${bare}) AND CAST('${last}' AS ${bare})`;
  const bare = `pg_catalog.${type.name}`;
  switch (type.name) {
    case "date": {
      const moment = `pg_catalog.date_trunc('${precision}', CAST(${value} AS pg_catalog.timestamp))`;
      return typed(`CASE WHEN ${within(firstDay, lastDay)} THEN ${moment} END`, type);
    }
    case "timestamp": {
      const moment = `pg_catalog.date_trunc('${precision}', ${value})`;
      return typed(`CASE WHEN ${within(firstDay, lastDay)} THEN ${moment} END`, type);
    }
    case "timestamptz": {
      const moment = `pg_catalog.date_trunc('${precision}', ${value}, 'UTC')`;
      return typed(`CASE WHEN ${within(`${firstDay} 00:00:00+00`, `${lastDay} 00:00:00+00`)} THEN ${moment} END`, type);
    }
    default:
      return null;
  }
}

const integerMax: ReadonlyMap<string, bigint> = new Map([
  ["int2", 32_767n],
  ["int4", 2_147_483_647n],
  ["int8", 9_223_372_036_854_775_807n],
]);
/** Past this a double has no whole numbers between its neighbours worth rounding. */
const doubleMax = 1e15;

/** The nearest multiple of `roundTo`, no further than the last multiple that the type can hold. */
function maskNumber({ column, type }: MaskedInput, roundTo: number): string | null {
  if (type.schema !== "pg_catalog") {
    return null;
  }
  const value = quoteIdentifier(column);
  if (type.name === "float4" || type.name === "float8") {
    const exact = `CAST(${value} AS pg_catalog.float8)`;
    // Below half a step the result is 0; dividing there could underflow, which is an error.
    const small = `${exact} > ${-roundTo / 2} AND ${exact} < ${roundTo / 2}`;
    const fits = `${exact} BETWEEN -${doubleMax} AND ${doubleMax}`;
    const rounded = `pg_catalog.round(${exact} / ${roundTo}::pg_catalog.float8) * ${roundTo}::pg_catalog.float8`;
    return typed(`CASE WHEN ${small} THEN 0 WHEN ${fits} THEN ${rounded} END`, type);
  }
  const max = type.name === "numeric" ? numericMax(type.modifier) : (integerMax.get(type.name) ?? null);
  if (max === null && type.name !== "numeric") {
    return null;
  }
  const step = BigInt(roundTo);
  const rounded = `pg_catalog.round(CAST(${value} AS pg_catalog.numeric) / ${step}) * ${step}`;
  if (max === null) {
    return typed(rounded, type);
  }
  // LEAST and GREATEST skip NULL, which would turn a missing value into a limit.
  const bound = (max / step) * step;
  return typed(`CASE WHEN ${value} IS NOT NULL THEN LEAST(GREATEST(${rounded}, -${bound}), ${bound}) END`, type);
}

/** The largest whole number that `numeric(precision, scale)` holds; null when it has no such limit. */
function numericMax(modifier: number): bigint | null {
  if (modifier < 4) {
    return null;
  }
  const precision = ((modifier - 4) >> 16) & 0xffff;
  // Eleven bits, signed since PostgreSQL 15.
  const scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
  const digits = precision - Math.max(scale, 0);
  return digits <= 0 ? 0n : 10n ** BigInt(digits) - 1n;
}
