import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { limits } from "#domain/limits.ts";
import { preparePassword, saslprep } from "#identity/saslprep.ts";
import {
  answerServer,
  challengeClient,
  isServerProven,
  makeVerifier,
  mockVerifier,
  scramIterations,
  startClient,
  verifierToPostgres,
  verifyClient,
  type ScramClientFirst,
} from "#identity/scram.ts";

const salt = Buffer.alloc(16, 5);
const verifier = makeVerifier("pencil", salt, scramIterations);

/** The exchange of RFC 7677 section 3. */
const rfc = {
  clientNonce: "rOprNGfwEbeRWgbNEkqO",
  serverNonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
  saltBase64: "W22ZaJ0SNY7soEsUEjb6gQ==",
  clientFirst: "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
  serverFirst: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
  clientFinal:
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
  serverFinal: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
} as const;

const violation: unknown = expect.objectContaining({ code: "protocol.violation", whose: "client" });

describe("the vector of RFC 7677", () => {
  test("the server's side", () => {
    const stored = makeVerifier("pencil", Buffer.from(rfc.saltBase64, "base64"), 4096);
    const challenge = challengeClient(rfc.clientFirst, stored, rfc.serverNonce);
    expect(challenge.message).toBe(rfc.serverFirst);
    expect(verifyClient(challenge, rfc.clientFinal)).toBe(rfc.serverFinal);
  });

  test("the client's side", async () => {
    const first: ScramClientFirst = {
      message: rfc.clientFirst,
      bare: rfc.clientFirst.slice(3),
      nonce: rfc.clientNonce,
    };
    const final = await answerServer(first, rfc.serverFirst, "pencil");
    expect(final.message).toBe(rfc.clientFinal);
    expect(isServerProven(final, rfc.serverFinal)).toBe(true);
    expect(isServerProven(final, rfc.serverFinal.replace("6", "7"))).toBe(false);
    expect(isServerProven(final, "e=other-error")).toBe(false);
    expect(isServerProven(final, "")).toBe(false);
  });
});

describe("our two sides together", () => {
  const password = fc.string({ unit: "binary", minLength: 1, maxLength: 20 }).filter((text) => text.isWellFormed());

  test("agree for the right password and for no other", async () => {
    await fc.assert(
      fc.asyncProperty(password, password, fc.boolean(), async (right, other, same) => {
        const tried = same ? right : other;
        const first = startClient("client-nonce");
        const challenge = challengeClient(first.message, makeVerifier(right, salt, scramIterations), "server-nonce");
        const final = await answerServer(first, challenge.message, tried);
        const answer = verifyClient(challenge, final.message);
        const matches = preparePassword(right).equals(preparePassword(tried));
        expect(answer !== null).toBe(matches);
        expect(answer !== null && isServerProven(final, answer)).toBe(matches);
      }),
      { numRuns: 60 },
    );
  });

  test("a client that saw no channel binding offered is let in, one that asks for it is not", async () => {
    const first = startClient("abc");
    const challenge = challengeClient(`y,,${first.bare}`, verifier, "def");
    const final = await answerServer(first, challenge.message, "pencil");
    // Its proof covers `y,,`; one that covers `n,,` shows that the flag was changed on the way.
    expect(() => verifyClient(challenge, final.message)).toThrow(violation);
    expect(challenge.gs2Header).toBe("y,,");
    for (const flag of ["p=tls-server-end-point", "p=tls-unique", "x", ""]) {
      expect(() => challengeClient(`${flag},,${first.bare}`, verifier, "def")).toThrow(violation);
    }
  });

  test("any change to the last message is refused", async () => {
    const first = startClient("abc");
    const challenge = challengeClient(first.message, verifier, "def");
    const { message } = await answerServer(first, challenge.message, "pencil");
    expect(verifyClient(challenge, message)).not.toBeNull();
    for (let at = 0; at < message.length; at++) {
      const changed = `${message.slice(0, at)}${message[at] === "A" ? "B" : "A"}${message.slice(at + 1)}`;
      const shortened = message.slice(0, at) + message.slice(at + 1);
      for (const wrong of [changed, shortened]) {
        let answer: string | null = null;
        try {
          answer = verifyClient(challenge, wrong);
        } catch (error) {
          expect(error).toEqual(violation);
        }
        expect(answer).toBeNull();
      }
    }
  });

  test("a proof of one exchange is worth nothing in another", async () => {
    const first = startClient("abc");
    const { message } = await answerServer(first, challengeClient(first.message, verifier, "one").message, "pencil");
    expect(() => verifyClient(challengeClient(first.message, verifier, "two"), message)).toThrow(violation);
  });
});

describe("what a client gets wrong", () => {
  test.each([
    ["nothing", ""],
    ["no header", "n=,r=abc"],
    ["an authorization identity", "n,a=admin,n=,r=abc"],
    ["a mandatory extension", "n,,m=x,n=,r=abc"],
    ["no nonce", "n,,n="],
    ["an empty nonce", "n,,n=,r="],
    ["a nonce that is not printable", "n,,n=,r=a\u0007"],
    ["a nonce beyond ASCII", "n,,n=,r=\u00e4"],
    ["a bad escape in the name", "n,,n=a=2D,r=abc"],
    ["fields in another order", "n,,r=abc,n="],
  ])("%s in its first message is refused", (_name, message) => {
    expect(() => challengeClient(message, verifier, "def")).toThrow(violation);
  });

  test("what RFC 5802 allows besides is not: an escaped name, optional extensions", () => {
    for (const message of ["n,,n=a=2Cb=3Dc,r=abc", "n,,n=*,r=abc,x=1,y=2", "n,,n=,r=!+-~"]) {
      expect(challengeClient(message, verifier, "def").message).toMatch(/^r=[!-~]+def,s=/);
    }
  });

  test.each([
    ["nothing", ""],
    ["no proof", "c=biws,r=abcdef"],
    ["another nonce", "c=biws,r=abcdeg,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    ["channel binding data", "c=cD10bHMtdW5pcXVl,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    ["a short proof", "c=biws,r=abcdef,p=AAAA"],
    ["a proof that is not base64", "c=biws,r=abcdef,p=!!!!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    ["a proof with loose base64", "c=biws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
  ])("%s in its last message is refused", (_name, message) => {
    const challenge = challengeClient("n,,n=,r=abc", verifier, "def");
    expect(() => verifyClient(challenge, message)).toThrow(violation);
  });
});

describe("what a server gets wrong", () => {
  const first = startClient("abc");
  test.each([
    ["nothing", ""],
    ["an error", "e=unknown-user"],
    ["another nonce", "r=xyzdef,s=AAAA,i=4096"],
    ["our own nonce alone", "r=abc,s=AAAA,i=4096"],
    ["no salt", "r=abcdef,s=,i=4096"],
    ["a salt that is not base64", "r=abcdef,s=A,i=4096"],
    ["too few rounds", "r=abcdef,s=AAAA,i=4095"],
    ["one round", "r=abcdef,s=AAAA,i=1"],
    ["negative rounds", "r=abcdef,s=AAAA,i=-4096"],
    ["rounds that cost minutes", `r=abcdef,s=AAAA,i=${limits.scramIterationsMax + 1}`],
    ["rounds beyond any number", "r=abcdef,s=AAAA,i=99999999999999999999"],
    ["a mandatory extension", "m=x,r=abcdef,s=AAAA,i=4096"],
  ])("%s is refused before the password is used", async (_name, message) => {
    await expect(answerServer(first, message, "pencil")).rejects.toMatchObject({
      code: "upstream.authentication",
      whose: "upstream",
    });
  });
});

describe("verifiers", () => {
  test("are written as PostgreSQL stores them", () => {
    const text = verifierToPostgres(verifier);
    expect(text).toMatch(/^SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$/);
    expect(text).not.toContain("pencil");
  });

  test("made up for unknown logins look like real ones, stay the same, and differ by login and by node", () => {
    const key = Buffer.alloc(32, 1);
    const made = mockVerifier(key, "eve");
    expect(verifierToPostgres(made)).toMatch(
      /^SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$/,
    );
    expect(mockVerifier(key, "eve")).toEqual(made);
    expect(mockVerifier(key, "eva").saltBase64).not.toBe(made.saltBase64);
    expect(mockVerifier(Buffer.alloc(32, 2), "eve").saltBase64).not.toBe(made.saltBase64);
  });
});

describe("SASLprep", () => {
  test.each([
    ["I\u00adX", "IX"],
    ["user", "user"],
    ["USER", "USER"],
    ["\u00aa", "a"],
    ["\u2168", "IX"],
    ["\u0007", null],
    ["\u0627\u0031", null],
  ])("RFC 4013 section 3: %j gives %j", (text, prepared) => {
    expect(saslprep(text)).toBe(prepared);
  });

  test("what it prohibits is hashed as it is, and pure ASCII is never touched, as in PostgreSQL", () => {
    for (const password of ["a\u0308\u{1f600}", "\ue000", "mixed \u0627 directions", "\u00ad", "tab\t\u0007"]) {
      expect(preparePassword(password).toString("utf8")).toBe(password);
    }
    expect(preparePassword("a\u0308\u00a0b").toString("utf8")).toBe("\u00e4 b");
  });
});
