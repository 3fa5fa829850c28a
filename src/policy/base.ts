/**
 * The policies that stand in every policy set, the same words each time. They permit what every grant needs beside its tables,
 * and only inside the grant: the statement itself, transactions, the catalogs (which show what is granted), functions (the gate
 * lets vetted ones through only) and session settings (the gate lets harmless ones through only). And they forbid what ends all
 * rights, whatever else permits it.
 */
import type { PolicyText } from "./text.ts";

const insideTheGrant = "when { principal in context.grant && context.now < context.grant.expiresAt }";

function basePermit(name: string, actions: string): PolicyText {
  return { id: `base:${name}`, text: `permit(principal, action ${actions}, resource) ${insideTheGrant};` };
}

/** Ids of the base policies that end all rights: `explain.ts` words them by what they are about. */
export const endingPolicies = {
  grantEnded: "base:grant-ended",
  grantExpired: "base:grant-expired",
  principalDisabled: "base:principal-disabled",
  principalExpired: "base:principal-expired",
} as const;

/** In order of their ids. */
export const basePolicies: readonly PolicyText[] = [
  basePermit("call", '== Action::"call"'),
  basePermit("catalog", '== Action::"catalog"'),
  {
    id: endingPolicies.grantEnded,
    text: 'forbid(principal, action, resource) when { context.grant.state != "active" };',
  },
  {
    id: endingPolicies.grantExpired,
    text: "forbid(principal, action, resource) when { context.now >= context.grant.expiresAt };",
  },
  {
    id: endingPolicies.principalDisabled,
    text: 'forbid(principal, action, resource) when { principal.status != "active" };',
  },
  {
    id: endingPolicies.principalExpired,
    text: "forbid(principal, action, resource) when { principal has expiresAt && context.now >= principal.expiresAt };",
  },
  basePermit("setting", 'in [Action::"show", Action::"set"]'),
  basePermit("statement", '== Action::"statement"'),
  basePermit("transaction", '== Action::"transaction"'),
];
