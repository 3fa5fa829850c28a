/** How the provisioner's SQL writes what it did not make up itself. */
import type { QualifiedName } from "#domain/scope.ts";
import { quoteIdentifier } from "#sql/identifier.ts";

/** A string as a literal that means the same whatever `standard_conforming_strings` is. */
export function quoteLiteral(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes("\\") ? ` E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

/** `"schema"."name"`. */
export function qualify(name: QualifiedName): string {
  return `${quoteIdentifier(name.schema)}.${quoteIdentifier(name.name)}`;
}
