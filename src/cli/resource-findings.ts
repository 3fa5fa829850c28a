/** What the gateway found about a resource, in the words of the command line, and the SQL that mends it. Pure. */
import type { ResourceView } from "#domain/control.ts";
import { counted } from "./output.ts";

/** `ready`, `ready, 2 findings`, or `not used yet`: a resource is looked at when the first grant needs it. */
export function describeResourceState(resource: ResourceView): string {
  if (resource.state === "unavailable") {
    return "not used yet";
  }
  return resource.findings.length === 0 ? "ready" : `ready, ${counted(resource.findings.length, "finding")}`;
}

const guide = 'docs/configuration.md, "What PUBLIC may do"';
/** A name, or two with a dot, that means the same with and without quotes. */
const plainName = /^[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)?$/;

/**
 * How to take from PUBLIC what a finding says that it has, such as `CREATE on schema public`: the SQL where one statement does it
 * and the name needs no quotes, and always where to read more.
 */
export function fixOfPublicRight(finding: string): string {
  const sql = revokeStatement(finding);
  return sql === null ? `revoke it from PUBLIC: ${guide}` : `${sql}; see ${guide}`;
}

function revokeStatement(finding: string): string | null {
  const functions = /^EXECUTE on \d+ functions? in schema (.+)$/.exec(finding)?.[1];
  if (functions !== undefined) {
    return plainName.test(functions) ? `revoke execute on all functions in schema ${functions} from public` : null;
  }
  if (/^CONNECT on \d+ other databases?$/.test(finding)) {
    return "revoke connect on database <each other one> from public, and grant it to the roles that use it";
  }
  const [, privileges, kind = "", name = ""] =
    /^([A-Z, ]+) on (?:(database|schema|language|foreign server) )?(\S+)$/.exec(finding) ?? [];
  if (privileges === undefined || !plainName.test(name)) {
    return null;
  }
  // Of what has no kind before its name, only a sequence knows USAGE.
  const relation = privileges.includes("USAGE") ? "sequence" : "table";
  const object = `${kind === "" ? relation : kind} ${name}`;
  return `revoke ${privileges.toLowerCase()} on ${object} from public`;
}
