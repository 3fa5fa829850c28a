/** What a parser of outside text answers: the value, or why it is not one. Malformed input is expected, so nothing throws. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

/** An accepted value. */
export function accepted<T>(value: T): Parsed<T> {
  return { ok: true, value };
}

/** A refusal, in words that name what is wrong. */
export function refused(reason: string): { readonly ok: false; readonly reason: string } {
  return { ok: false, reason };
}

/** Standard base64 (RFC 4648 section 4) in its one canonical spelling; null for anything else. */
export function decodeBase64(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, "base64");
  return bytes.toString("base64") === text ? bytes : null;
}

/** A decimal without sign or leading zero that a number holds exactly; null for anything else. */
export function parseDecimal(text: string): number | null {
  if (!/^(0|[1-9][0-9]{0,15})$/.test(text)) {
    return null;
  }
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : null;
}
