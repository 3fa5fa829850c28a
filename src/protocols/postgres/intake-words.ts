/** What a client reads when a message cannot be taken. */
import { limits } from "#domain/limits.ts";
import type { UnitRefusal } from "#protocols/driver.ts";
import type { Refusal } from "#sql/analysis.ts";
import { nameBytesMax } from "./names.ts";

/** A refusal of the gate, with what goes into the record. */
export function unitRefusal(result: Refusal, payload: { readonly [name: string]: string }): UnitRefusal {
  const { code, reason, nextStep, effects, statement } = result;
  return { code, reason, nextStep, effects, ordinal: statement, payload };
}

/** Reason and next step. */
export type Words = readonly [reason: string, nextStep: string];
export const noFastPath: Words = [
  "function calls by object id (the fast path) are not supported",
  "Call the function in SQL.",
];
export const notNow: Words = [
  "this message has no place here",
  "Send Query, Parse, Bind, Describe, Execute, Close, Flush or Sync.",
];
export const alreadyPrepared: Words = [
  "a prepared statement of this name exists",
  "Close it first, or use another name.",
];
export const notPrepared: Words = ["no prepared statement of this name exists", "Parse it first."];
export const noPortal: Words = ["no portal of this name exists", "Bind it first."];
export const tooManyStatements: Words = [
  `a session may hold ${limits.preparedStatementsMax} prepared statements`,
  "Close those that are no longer needed.",
];
export const tooManyPortals: Words = [
  `a session may hold ${limits.portalsMax} portals`,
  "Close those that are no longer needed.",
];
export const oneStatement: Words = ["a prepared statement holds one command", "Send each statement by itself."];
export const settingNeedsBind: Words = [
  "set_config needs the setting's name in the statement",
  "Name the setting as a literal.",
];
export const namedAlone: Words = [
  "PREPARE, EXECUTE and DEALLOCATE stand alone in a message",
  "Send each statement by itself.",
];
export const namedSimple: Words = [
  "PREPARE, EXECUTE and DEALLOCATE are not supported as prepared statements themselves",
  "Send them as simple queries, or use the driver's prepared statements.",
];
export const parameterType: Words = [
  "a parameter of this type would be read as a name, or is of a type that is not known",
  "Declare the parameter as text, or leave its type to the server.",
];
export const nameTooLong: Words = [
  `the name of a prepared statement or portal is longer than ${nameBytesMax} bytes`,
  "Use a shorter name: PostgreSQL tells names apart by their first 63 bytes.",
];
export const changed: Words = ["the database's schema changed since this was prepared", "Prepare the statement again."];
export const over: Words = ["the grant has ended", "Ask for a new grant."];
