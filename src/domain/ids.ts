/** Opaque identifiers: `<prefix>_` and Crockford base32. The prefix says what the id names, wherever it is seen. */

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

export type PrincipalId = Branded<"PrincipalId">;
export type ResourceId = Branded<"ResourceId">;
export type TaskId = Branded<"TaskId">;
export type GrantId = Branded<"GrantId">;
export type CredentialId = Branded<"CredentialId">;
export type SessionId = Branded<"SessionId">;
export type CommandId = Branded<"CommandId">;
export type DecisionId = Branded<"DecisionId">;
/** One run of `sallyport run`: one child process that speaks MCP over stdio. */
export type RunId = Branded<"RunId">;
/** One JSON-RPC request that an MCP client sent to a server. */
export type CallId = Branded<"CallId">;
/** One change of the control plane. */
export type ChangeId = Branded<"ChangeId">;

export interface IdTypes {
  readonly prn: PrincipalId;
  readonly res: ResourceId;
  readonly tsk: TaskId;
  readonly grt: GrantId;
  readonly crd: CredentialId;
  readonly ses: SessionId;
  readonly cmd: CommandId;
  readonly dec: DecisionId;
  readonly run: RunId;
  readonly call: CallId;
  readonly chg: ChangeId;
}

export type IdPrefix = keyof IdTypes;

/** Makes ids. Passed in as an argument, so that a test can make them predictable. */
export type IdSource = <P extends IdPrefix>(prefix: P) => IdTypes[P];

/** Crockford base32, lower case: no i, l, o, u. */
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";
/** 16 characters of 5 bits: 80 bits of randomness. */
const idCharacters = 16;

/** An `IdSource` over a source of random bytes (`length` bytes a call). */
export function idSource(randomBytes: (length: number) => Uint8Array): IdSource {
  const poolIds = 64;
  let pool: Uint8Array = new Uint8Array(0);
  let used = 0;
  return <P extends IdPrefix>(prefix: P): IdTypes[P] => {
    if (used + idCharacters > pool.length) {
      pool = randomBytes(poolIds * idCharacters);
      used = 0;
    }
    let text = `${prefix}_`;
    for (let i = 0; i < idCharacters; i++) {
      text += alphabet[(pool[used + i] ?? 0) & 31] ?? "0";
    }
    used += idCharacters;
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the mint: nothing else makes an id from nothing
    return text as IdTypes[P];
  };
}

const idPattern = /^(prn|res|tsk|grt|crd|ses|cmd|dec|run|call|chg)_[0-9a-hjkmnp-tv-z]{1,32}$/;

/** Reads an id of the given prefix from outside text; null when the text is not one. */
export function parseId<P extends IdPrefix>(prefix: P, text: string): IdTypes[P] | null {
  if (!idPattern.test(text) || !text.startsWith(`${prefix}_`)) {
    return null;
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the other mint: it came from outside, checked just above
  return text as IdTypes[P];
}
