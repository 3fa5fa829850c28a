/** Which function or operator a call can mean (parse_func.c, parse_oper.c), and whether every one of them is allowed. */
import type { Node } from "libpg-query";
import { type Catalog, type CatalogFunction, type CatalogOperator, isBuiltin, lookupPath } from "./catalog.ts";
import { applyVerdict } from "./call-arguments.ts";
import { judgeFunction } from "./functions.ts";
import type { QueryScope } from "./namespace.ts";
import { quoted, refuse, refuseFunction } from "./refused.ts";
import { namesOf } from "./tree.ts";
import { checkUnified, commonType, isCoercible, isPolymorphic, isPolymorphicArray, typeOids } from "./types.ts";
import type { Value } from "./value.ts";

/** What is left of a call's candidates. */
export interface ResolvedCall {
  readonly name: string;
  /** The functions that it can mean, all allowed; at least one. */
  readonly candidates: readonly CatalogFunction[];
  /** OID of the result; null when candidates differ or it is polymorphic over something unknown. */
  readonly returns: number | null;
}

/**
 * Resolves a call by name, number and types of arguments.
 * @throws StatementRefused `grant.no-function` when anything that it can mean is not allowed, or nothing has that name
 */
export function resolveFunction(
  nameNodes: readonly Node[] | undefined,
  values: readonly Value[],
  scope: QueryScope,
): ResolvedCall {
  const { catalog } = scope.state.context;
  const names = namesOf(nameNodes, scope.state);
  const name = names.at(-1) ?? "";
  const shown = names.join(".");
  if (names.length > 2) {
    refuseFunction(shown);
  }
  const schemas = names.length === 2 ? names.slice(0, 1) : lookupPath(catalog);
  const named = (catalog.functions.get(name) ?? []).filter(
    (routine) => schemas.includes(routine.schema) && takes(routine, values.length),
  );
  const feasible = preferText(
    named.filter((routine) => accepts(catalog, routine, values)),
    values,
  );
  // An exact match in pg_catalog, which is looked through first, is what PostgreSQL takes whatever else there is.
  const exact = named.filter((routine) => isBuiltin(routine) && matchesExactly(routine, values));
  const candidates = exact.length > 0 ? exact : feasible;
  if (candidates.length === 0) {
    refuseFunction(shown);
  }
  for (const routine of candidates) {
    applyVerdict(judgeFunction(routine, catalog), routine, values, scope);
    for (const type of [routine.returns, ...routine.outputs.map((output) => output.type)]) {
      scope.state.noteType(type);
    }
  }
  checkTextArguments(candidates, values, scope);
  scope.state.calls.add(name);
  return { name, candidates, returns: resultType(catalog, candidates, values) };
}

const textTypes: ReadonlySet<number> = new Set([typeOids.text, typeOids.name, typeOids.varchar, typeOids.bpchar]);

/** Where all arguments are untyped literals, PostgreSQL takes the candidates that want text, if there are any. */
function preferText(candidates: readonly CatalogFunction[], values: readonly Value[]): readonly CatalogFunction[] {
  if (values.length === 0 || values.some((value) => value.constant === null)) {
    return candidates;
  }
  const wantText = candidates.filter((routine) =>
    values.every((_, i) => textTypes.has(parameterType(routine, i, values.length))),
  );
  return wantText.length > 0 ? wantText : candidates;
}

function takes(routine: CatalogFunction, count: number): boolean {
  const most = routine.arguments.length;
  const least = most - routine.defaults;
  return routine.variadic === 0 ? count >= least && count <= most : count >= least - 1;
}

function parameterType(routine: CatalogFunction, position: number, count: number): number {
  const last = routine.arguments.length - 1;
  if (routine.variadic !== 0 && position >= last) {
    // The array itself can be passed with VARIADIC: then the types are not told apart.
    return count === routine.arguments.length ? 0 : routine.variadic;
  }
  return routine.arguments[position] ?? 0;
}

function accepts(catalog: Catalog, routine: CatalogFunction, values: readonly Value[]): boolean {
  return values.every((value, i) => {
    const target = parameterType(routine, i, values.length);
    return target === 0 || isCoercible(catalog, value.type, target);
  });
}

function matchesExactly(routine: CatalogFunction, values: readonly Value[]): boolean {
  return (
    routine.arguments.length === values.length &&
    values.every(
      (value, i) => value.type !== null && value.type !== typeOids.unknown && value.type === routine.arguments[i],
    )
  );
}

function resultType(catalog: Catalog, candidates: readonly CatalogFunction[], values: readonly Value[]): number | null {
  return commonType(
    candidates.map((routine) => resultOf(catalog, routine, values)),
    catalog,
  );
}

function resultOf(catalog: Catalog, routine: CatalogFunction, values: readonly Value[]): number | null {
  if (!isPolymorphic(catalog, routine.returns)) {
    return routine.returns;
  }
  for (const [i, value] of values.entries()) {
    const parameter = parameterType(routine, i, values.length);
    if (!isPolymorphic(catalog, parameter) || value.type === null || value.type === typeOids.unknown) {
      continue;
    }
    const type = catalog.types.get(value.type);
    const element = isPolymorphicArray(catalog, parameter) ? (type?.element ?? 0) : value.type;
    const result = isPolymorphicArray(catalog, routine.returns) ? (catalog.types.get(element)?.array ?? 0) : element;
    return result === 0 ? null : result;
  }
  return null;
}

/** Text next to a `reg…` value in a polymorphic call is read as a name, too. */
function checkTextArguments(candidates: readonly CatalogFunction[], values: readonly Value[], scope: QueryScope): void {
  const { catalog } = scope.state.context;
  // By name, an argument can stand at any position.
  const hasNamed = values.some((value) => value.isUntyped && value.constant === null && value.parameter === null);
  const shared = values.filter((_, i) =>
    candidates.some((routine) => hasNamed || isShared(catalog, routine, parameterType(routine, i, values.length))),
  );
  if (shared.length > 1) {
    checkUnified(shared, scope);
  }
}

/** Whether a parameter gets one type together with others. `"any"` does so in hypothetical-set aggregates only. */
function isShared(catalog: Catalog, routine: CatalogFunction, parameter: number): boolean {
  // The type of an array that is passed with VARIADIC is not told.
  return (
    parameter === 0 ||
    (isPolymorphic(catalog, parameter) &&
      (routine.kind === "aggregate" || catalog.types.get(parameter)?.name !== "any"))
  );
}

/**
 * Resolves an operator: `left` is null for a prefix operator.
 * @throws StatementRefused when anything that it can mean is outside `pg_catalog`
 */
export function resolveOperator(
  nameNodes: readonly Node[] | undefined,
  left: Value | null,
  right: Value,
  scope: QueryScope,
): number | null {
  const names = namesOf(nameNodes, scope.state);
  return resolveOperatorByName(names, left, right, scope);
}

/** As `resolveOperator`, by name: what BETWEEN and IN are made of. */
export function resolveOperatorByName(
  names: readonly string[],
  left: Value | null,
  right: Value,
  scope: QueryScope,
): number | null {
  const { catalog } = scope.state.context;
  const name = names.at(-1) ?? "";
  const schemas = names.length === 1 ? lookupPath(catalog) : names.slice(0, -1);
  if (names.length > 2 || (names.length === 2 && names[0] !== "pg_catalog")) {
    refuseOperator(names.join("."));
  }
  checkUnified(left === null ? [right] : [left, right], scope);
  if (left?.elements !== null && left?.elements !== undefined && right.elements !== null) {
    for (const [i, element] of left.elements.entries()) {
      resolveOperatorByName(names, element, right.elements[i] ?? element, scope);
    }
    return typeOids.boolean;
  }
  const candidates = (catalog.operators.get(name) ?? []).filter(
    (operator) => schemas.includes(operator.schema) && (operator.left === 0) === (left === null),
  );
  const feasible = narrowed(catalog, candidates, left, right);
  if (
    feasible.length === 0 ||
    feasible.some((operator) => !isBuiltin(operator) || operator.volatility === "volatile")
  ) {
    refuseOperator(name);
  }
  const results = new Set(feasible.map((operator) => operator.result));
  const [only] = results;
  return results.size === 1 && only !== undefined && !isPolymorphic(catalog, only) ? only : null;
}

function narrowed(
  catalog: Catalog,
  candidates: readonly CatalogOperator[],
  left: Value | null,
  right: Value,
): readonly CatalogOperator[] {
  const known = (value: Value | null): number | null =>
    value === null || value.type === typeOids.unknown ? null : value.type;
  const isLiteral = (value: Value | null): boolean => value?.type === typeOids.unknown;
  // An untyped literal is first taken to be of the other side's type.
  const leftType = known(left) ?? (isLiteral(left) ? known(right) : null);
  const rightType = known(right) ?? (isLiteral(right) ? known(left) : null);
  const exact = candidates.filter(
    (operator) => isBuiltin(operator) && operator.right === rightType && (left === null || operator.left === leftType),
  );
  if (exact.length > 0) {
    return exact;
  }
  return candidates.filter(
    (operator) =>
      isCoercible(catalog, right.type, operator.right) &&
      (left === null || isCoercible(catalog, left.type, operator.left)),
  );
}

function refuseOperator(name: string): never {
  refuse(
    "grant.no-function",
    `no grant covers operator ${quoted(name)} here`,
    "Use the operators of PostgreSQL itself; cast both sides to built-in types.",
  );
}
