import { generateKeyPairSync } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { credentialBody, grantBody, principalBody, resourceBody } from "#store/rows.ts";
import { signRow, signedBytes, verifyRow } from "#store/signature.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const body = fc.dictionary(fc.string({ maxLength: 8 }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 6 });
const content = fc.record({ table: fc.constantFrom("grants", "principals"), entryIndex: fc.nat(), body });

describe("the signature on a row", () => {
  test("holds for the same content in any order of keys, as a database may give it back", () => {
    fc.assert(
      fc.property(content, (one) => {
        const reordered = { ...one, body: Object.fromEntries(Object.entries(one.body).toReversed()) };
        expect(verifyRow(reordered, signRow(one, privateKey), publicKey)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test("holds for no other content, and no other bytes", () => {
    fc.assert(
      fc.property(content, content, fc.nat({ max: 511 }), (one, other, bit) => {
        const signature = signRow(one, privateKey);
        fc.pre(!signedBytes(one).equals(signedBytes(other)));
        expect(verifyRow(other, signature, publicKey)).toBe(false);
        const flipped = Buffer.from(signature);
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(verifyRow(one, flipped, publicKey)).toBe(false);
      }),
      { numRuns: 50 },
    );
  });

  test("of another length or another key is no signature", () => {
    const one = { table: "grants", entryIndex: 1, body: {} };
    const signature = signRow(one, privateKey);
    expect(verifyRow(one, signature.subarray(1), publicKey)).toBe(false);
    expect(verifyRow(one, Buffer.alloc(0), publicKey)).toBe(false);
    expect(verifyRow(one, signature, generateKeyPairSync("ed25519").publicKey)).toBe(false);
  });
});

describe("a signed body that this program does not know", () => {
  test.each([
    ["a principal without a kind", principalBody, { id: "prn_1", name: "x", status: "active" }],
    ["a human with an end", principalBody, { kind: "human", id: "prn_1", name: "x", status: "active", expiresAtMs: 1 }],
    [
      "an agent without an owner",
      principalBody,
      { kind: "agent", id: "prn_1", name: "x", status: "active", expiresAtMs: 1 },
    ],
    ["an id of another kind", principalBody, { kind: "human", id: "res_1", name: "x", status: "active" }],
    ["a resource of another kind", resourceBody, { kind: "http", id: "res_1", name: "x" }],
    ["an empty grant", grantBody, {}],
    ["a credential that is a list", credentialBody, []],
  ])("%s is refused", (_, schema, value) => {
    expect(schema.safeParse(value).success).toBe(false);
  });
});
