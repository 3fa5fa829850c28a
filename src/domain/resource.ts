import type { ResourceId } from "./ids.ts";

/** A named thing behind the gateway. */
export type Resource = PostgresResource;

export interface PostgresResource {
  readonly kind: "postgres";
  readonly id: ResourceId;
  /** Unique among resources; what a client names as its database. */
  readonly name: string;
  /** Where it is. The login of the provisioner is a secret of the configuration and is never part of this object. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly labels: readonly ColumnLabel[];
}

/** A label on a column, such as `pii.email` on `public.customers.email`. */
export interface ColumnLabel {
  readonly schema: string;
  readonly table: string;
  readonly column: string;
  readonly label: string;
}

/** What the masked value of a label looks like. Keyed operators come with the masking issue and are refused until then. */
export type MaskOperator =
  | { readonly kind: "redact" }
  | { readonly kind: "null" }
  | { readonly kind: "partial"; readonly keepLast: number }
  | { readonly kind: "email" }
  | { readonly kind: "date"; readonly precision: "year" | "quarter" | "month" }
  | { readonly kind: "number"; readonly roundTo: number };

/** A mask belongs to a label; the rule id is what a redaction record names. */
export interface Mask {
  readonly ruleId: string;
  readonly label: string;
  readonly operator: MaskOperator;
}
