/** What the policy engine is asked about a command: one request for the command, one for each of its effects. */
import type { Context, EntityJson, TypeAndId } from "@cedar-policy/cedar-wasm/nodejs";
import type { Effect, StatementKind } from "#domain/effect.ts";
import type { Grant } from "#domain/grant.ts";
import type { ResourceId } from "#domain/ids.ts";
import type { Principal } from "#domain/principal.ts";
import type { CedarRequest } from "./cedar.ts";
import type { PolicyAction, PolicyObjectType } from "./schema.ts";

/** One thing that must be permitted. */
export interface Question {
  readonly action: PolicyAction;
  readonly objectType: PolicyObjectType;
  /** A relation's key, or the name of a function or setting; the resource's id for the command itself. */
  readonly object: string;
  readonly columns: readonly string[];
}

/** Everything that a command needs permitted. Never empty: a command without effects is still a command. */
export function questionsOf(
  kind: StatementKind,
  effects: readonly Effect[],
  resource: ResourceId,
): readonly Question[] {
  const command: Question = {
    action: kind === "transaction" ? "transaction" : "statement",
    objectType: "Resource",
    object: resource,
    columns: [],
  };
  return [command, ...effects.map(questionOf)];
}

function questionOf(effect: Effect): Question {
  switch (effect.kind) {
    case "read":
      return { action: "select", objectType: "Table", object: effect.relation, columns: effect.columns };
    case "write":
      return { action: effect.verb, objectType: "Table", object: effect.relation, columns: effect.columns };
    case "catalog":
      return { action: "catalog", objectType: "Catalog", object: effect.relation, columns: [] };
    case "call":
      return { action: "call", objectType: "Function", object: effect.function, columns: [] };
    case "setting":
      return {
        action: effect.access === "read" ? "show" : "set",
        objectType: "Setting",
        object: effect.name,
        columns: [],
      };
    default:
      return effect satisfies never;
  }
}

/** Who asks, and under what: the part that all questions about a command share. */
export interface Asking {
  /** Whose rights the question is about: the acting principal, or the one it acts for. */
  readonly subject: Principal;
  readonly actor: Principal;
  readonly onBehalfOf: Principal | null;
  readonly grant: Grant;
  readonly resource: { readonly id: ResourceId; readonly name: string };
  readonly kind: StatementKind;
  readonly nowMs: number;
}

/** A question in the engine's own form. */
export function cedarRequest(asking: Asking, question: Question): CedarRequest {
  const { actor, onBehalfOf, grant, resource } = asking;
  const context: Context = {
    now: asking.nowMs,
    statement: asking.kind,
    columns: [...question.columns],
    grant: { __entity: uid("Grant", grant.id) },
    actor: { __entity: uid("Principal", actor.id) },
  };
  const entities: EntityJson[] = [grantEntity(grant), principalEntity(actor, grant), resourceEntity(resource)];
  if (onBehalfOf !== null) {
    context["onBehalfOf"] = { __entity: uid("Principal", onBehalfOf.id) };
    if (onBehalfOf.id !== actor.id) {
      entities.push(principalEntity(onBehalfOf, grant));
    }
  }
  if (question.objectType !== "Resource") {
    entities.push(objectEntity(question, resource.id));
  }
  return {
    principal: uid("Principal", asking.subject.id),
    action: uid("Action", question.action),
    resource: uid(question.objectType, question.object),
    context,
    entities,
  };
}

function uid(type: "Grant" | "Principal" | "Action" | PolicyObjectType, id: string): TypeAndId {
  return { type, id };
}

function grantEntity(grant: Grant): EntityJson {
  const attrs: EntityJson["attrs"] = {
    title: grant.task.title,
    state: grant.state,
    createdAt: grant.createdAtMs,
    expiresAt: grant.expiresAtMs,
  };
  if (grant.task.ticket !== null) {
    attrs["ticket"] = grant.task.ticket;
  }
  return { uid: uid("Grant", grant.id), attrs, parents: [] };
}

function principalEntity(principal: Principal, grant: Grant): EntityJson {
  const attrs: EntityJson["attrs"] = { kind: principal.kind, name: principal.name, status: principal.status };
  if (principal.kind !== "human") {
    attrs["owner"] = principal.ownerId;
    attrs["expiresAt"] = principal.expiresAtMs;
  }
  // Those whom the grant names, and nobody else, are in it.
  const isNamed = principal.id === grant.principalId || principal.id === grant.onBehalfOfId;
  return { uid: uid("Principal", principal.id), attrs, parents: isNamed ? [uid("Grant", grant.id)] : [] };
}

function resourceEntity(resource: Asking["resource"]): EntityJson {
  return { uid: uid("Resource", resource.id), attrs: { name: resource.name }, parents: [] };
}

function objectEntity(question: Question, resource: ResourceId): EntityJson {
  const dot = question.object.indexOf(".");
  const attrs: EntityJson["attrs"] =
    question.objectType === "Table"
      ? { schema: question.object.slice(0, Math.max(dot, 0)), name: question.object.slice(dot + 1) }
      : { name: question.object };
  return { uid: uid(question.objectType, question.object), attrs, parents: [uid("Resource", resource)] };
}
