import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import type { Direction } from "#protocols/postgres/codec.ts";
import { FrameReader, StartupReader, type Frame } from "#protocols/postgres/frames.ts";
import { decodeBackend } from "#protocols/postgres/messages-backend.ts";
import { encodeCancelRequest, encodeSslRequest, encodeStartup } from "#protocols/postgres/messages-encode.ts";
import { decodeFrontend } from "#protocols/postgres/messages-frontend.ts";
import {
  backendFrameBytesMax,
  backendTypes,
  frontendFrameBytesMax,
  frontendTypes,
  isKnownType,
} from "#protocols/postgres/messages-types.ts";
import { backendMessages, cutNaively, dataRow, frontendMessages, splitAt } from "./conversation-bytes.ts";

const directions = ["frontend", "backend"] as const;
const conversations: { readonly [D in Direction]: Buffer } = {
  frontend: Buffer.concat(frontendMessages),
  backend: Buffer.concat(backendMessages),
};

function readerOf(direction: Direction): FrameReader {
  return new FrameReader({
    direction,
    bytesMax: direction === "frontend" ? frontendFrameBytesMax : backendFrameBytesMax,
  });
}

function drain(reader: FrameReader): Frame[] {
  const frames: Frame[] = [];
  for (let frame = reader.next(); frame !== null; frame = reader.next()) {
    frames.push(frame);
  }
  return frames;
}

/** Pushes each chunk and drains after it. */
function readAll(direction: Direction, chunks: readonly Buffer[]): Frame[] {
  const reader = readerOf(direction);
  return chunks.flatMap((chunk) => {
    reader.push(chunk);
    return drain(reader);
  });
}

function hex(frames: readonly { readonly bytes: Buffer }[]): string[] {
  return frames.map((frame) => frame.bytes.toString("hex"));
}

function header(type: number, length: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes[0] = type;
  bytes.writeUInt32BE(length >>> 0, 1);
  return bytes;
}

function errorOf(act: () => unknown): unknown {
  try {
    act();
    return null;
  } catch (error) {
    return error;
  }
}

describe.each(directions)("a %s stream", (direction) => {
  const bytes = conversations[direction];
  const expected = cutNaively(bytes).map((frame) => frame.toString("hex"));

  test("cut at any one place gives the same frames", () => {
    for (let cut = 0; cut <= bytes.length; cut++) {
      expect(hex(readAll(direction, splitAt(bytes, [cut])))).toEqual(expected);
    }
  });

  test("fed byte by byte, or all at once, gives the same frames", () => {
    expect(
      hex(
        readAll(
          direction,
          Array.from(bytes, (byte) => Buffer.from([byte])),
        ),
      ),
    ).toEqual(expected);
    expect(hex(readAll(direction, [bytes]))).toEqual(expected);
  });

  test("cut anywhere, with pushes that are not drained between, gives the same frames", () => {
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 60 });
    fc.assert(
      fc.property(cuts, fc.infiniteStream(fc.boolean()), (places, drains) => {
        const reader = readerOf(direction);
        const frames: Frame[] = [];
        for (const chunk of splitAt(
          bytes,
          places.toSorted((a, b) => a - b),
        )) {
          reader.push(chunk);
          if (drains.next().value) {
            frames.push(...drain(reader));
          }
        }
        frames.push(...drain(reader));
        expect(hex(frames)).toEqual(expected);
        expect(reader.bufferedBytes).toBe(0);
      }),
    );
  });

  test("cut short anywhere gives the whole frames before the cut, and holds the rest", () => {
    for (let end = 0; end < bytes.length; end++) {
      const reader = readerOf(direction);
      reader.push(bytes.subarray(0, end));
      const whole = cutNaively(bytes.subarray(0, end));
      expect(hex(drain(reader))).toEqual(whole.map((frame) => frame.toString("hex")));
      expect(reader.bufferedBytes).toBe(end - whole.reduce((sum, frame) => sum + frame.length, 0));
    }
  });

  test("a frame that came in one piece is a view of its chunk", () => {
    const chunk = Buffer.concat([bytes, bytes]);
    for (const frame of readAll(direction, [chunk])) {
      expect(frame.bytes.buffer).toBe(chunk.buffer);
      expect(frame.body.length).toBe(frame.bytes.length - 5);
    }
  });

  test("every type byte that the protocol has not is refused at its first byte, and the reader stays failed", () => {
    for (let type = 0; type < 256; type++) {
      const reader = readerOf(direction);
      reader.push(Buffer.from([type]));
      if (isKnownType(direction, type)) {
        expect(reader.next()).toBeNull();
        continue;
      }
      expect(() => reader.next()).toThrow(
        expect.objectContaining({
          code: "protocol.violation",
          whose: direction === "frontend" ? "client" : "upstream",
        }),
      );
      reader.push(bytes);
      expect(() => reader.next()).toThrow(SallyportError);
      expect(reader.bufferedBytes).toBe(0);
    }
  });

  test("every length below 4 or over the cap is refused when the header is visible, and nothing else is", () => {
    const types = Object.values(direction === "frontend" ? frontendTypes : backendTypes);
    for (const type of types) {
      const cap = direction === "frontend" ? frontendFrameBytesMax(type) : backendFrameBytesMax(type);
      for (const length of [0, 1, 2, 3, cap, 0x7fffffff, 0x80000000, 0xffffffff]) {
        const reader = readerOf(direction);
        reader.push(header(type, length));
        expect(errorOf(() => reader.next())).toBeInstanceOf(SallyportError);
      }
      const reader = readerOf(direction);
      reader.push(header(type, cap - 1));
      expect(reader.next()).toBeNull();
    }
  });

  test("any mutation, cut anywhere, gives frames that are the input's own bytes, or a domain error", () => {
    const mutation = fc.record({
      at: fc.nat(bytes.length - 1),
      remove: fc.nat(6),
      insert: fc.uint8Array({ maxLength: 6 }),
    });
    const cuts = fc.array(fc.nat(bytes.length), { maxLength: 8 });
    fc.assert(
      fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), cuts, (mutations, places) => {
        let mutated = bytes;
        for (const { at, remove, insert } of mutations) {
          mutated = Buffer.concat([mutated.subarray(0, at), insert, mutated.subarray(at + remove)]);
        }
        const reader = readerOf(direction);
        let read = 0;
        const error = errorOf(() => {
          for (const chunk of splitAt(
            mutated,
            places.toSorted((a, b) => a - b),
          )) {
            reader.push(chunk);
            for (const frame of drain(reader)) {
              expect(frame.bytes.equals(mutated.subarray(read, read + frame.bytes.length))).toBe(true);
              read += frame.bytes.length;
              const failure = errorOf(() => (direction === "frontend" ? decodeFrontend(frame) : decodeBackend(frame)));
              expect(failure === null || failure instanceof SallyportError).toBe(true);
            }
          }
        });
        expect(error === null || error instanceof SallyportError).toBe(true);
        expect(reader.bufferedBytes).toBeLessThanOrEqual(mutated.length);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("memory and time", () => {
  test("a length that is only claimed allocates nothing of it", () => {
    const before = process.memoryUsage().arrayBuffers;
    const readers = Array.from({ length: 100 }, () => {
      const reader = readerOf("backend");
      reader.push(header(backendTypes.dataRow, limits.backendMessageBytesMax - 1));
      expect(reader.next()).toBeNull();
      reader.push(Buffer.alloc(1));
      expect(reader.next()).toBeNull();
      return reader;
    });
    // 100 claims of 64 MiB; what is held is the first step of each buffer.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(readers.length * 128 * 1024);
  });

  test("4 MiB byte by byte takes linear time and gives one frame", () => {
    const frame = Buffer.concat([
      header(frontendTypes.bind, limits.frontendMessageBytesMax - 1),
      Buffer.alloc(limits.frontendMessageBytesMax - 5, 7),
    ]);
    const reader = readerOf("frontend");
    const frames: Frame[] = [];
    for (let i = 0; i < frame.length; i++) {
      reader.push(frame.subarray(i, i + 1));
      const next = reader.next();
      if (next !== null) {
        frames.push(next);
      }
    }
    expect(frames).toHaveLength(1);
    expect(frames[0]?.bytes.equals(frame)).toBe(true);
  });

  test("a million pushes that nobody drained are read in linear time", () => {
    const reader = readerOf("frontend");
    const sync = Buffer.from([frontendTypes.sync, 0, 0, 0, 4]);
    for (let i = 0; i < 1_000_000; i++) {
      reader.push(sync.subarray(i % 5, (i % 5) + 1));
    }
    expect(drain(reader)).toHaveLength(200_000);
  });
});

describe("runs of frames", () => {
  const rows = [dataRow(["a"]), dataRow(["bb", null]), dataRow([]), dataRow(["x".repeat(100)])];
  const tail = backendMessages[8] ?? Buffer.alloc(0);

  test("frames of one type in one chunk come as one view, each inspected", () => {
    const reader = readerOf("backend");
    reader.push(Buffer.concat([...rows, tail]));
    const seen: Buffer[] = [];
    const run = reader.nextRun(backendTypes.dataRow, 1024, (chunk, start, end) => {
      seen.push(chunk.subarray(start, end));
    });
    expect(run?.frames).toBe(4);
    expect(run?.bytes.equals(Buffer.concat(rows))).toBe(true);
    expect(seen.map((body) => body.toString("hex"))).toEqual(rows.map((row) => row.subarray(5).toString("hex")));
    expect(reader.nextRun(backendTypes.dataRow, 1024, () => {})).toBeNull();
    expect(reader.next()?.bytes.equals(tail)).toBe(true);
  });

  test("runs and single frames together are the stream, however it is cut and whatever the bound", () => {
    const bytes = Buffer.concat([...rows, tail, ...rows, ...rows]);
    fc.assert(
      fc.property(
        fc.array(fc.nat(bytes.length), { maxLength: 10 }),
        fc.integer({ min: 1, max: 200 }),
        (places, max) => {
          const reader = readerOf("backend");
          const got: Buffer[] = [];
          for (const chunk of splitAt(
            bytes,
            places.toSorted((a, b) => a - b),
          )) {
            reader.push(chunk);
            for (;;) {
              const run = reader.nextRun(backendTypes.dataRow, max, () => {});
              const piece = run ?? reader.next();
              if (piece === null) {
                break;
              }
              if (run !== null) {
                expect(run.frames === 1 || run.bytes.length <= max).toBe(true);
                expect(cutNaively(run.bytes)).toHaveLength(run.frames);
              }
              got.push(piece.bytes);
            }
          }
          expect(Buffer.concat(got).equals(bytes)).toBe(true);
          expect(reader.bufferedBytes).toBe(0);
        },
      ),
    );
  });

  test("when an inspection throws nothing is taken", () => {
    const reader = readerOf("backend");
    reader.push(Buffer.concat(rows));
    expect(() =>
      reader.nextRun(backendTypes.dataRow, 1024, (_chunk, _start, end) => {
        if (end > 20) {
          throw new Error("no");
        }
      }),
    ).toThrow("no");
    expect(hex(drain(reader))).toEqual(rows.map((row) => row.toString("hex")));
  });
});

describe("the startup phase", () => {
  const startup = encodeStartup(
    new Map([
      ["user", "ada"],
      ["database", "billing"],
    ]),
  );
  const stream = Buffer.concat([encodeSslRequest(), startup, Buffer.from("rest")]);

  test("cut anywhere, packets and what follows them are the same", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(stream.length), { maxLength: 40 }), (places) => {
        const reader = new StartupReader();
        const kinds: string[] = [];
        const rest: Buffer[] = [];
        for (const chunk of splitAt(
          stream,
          places.toSorted((a, b) => a - b),
        )) {
          if (kinds.length === 2) {
            rest.push(chunk);
            continue;
          }
          reader.push(chunk);
          for (let packet = reader.next(); packet !== null; packet = reader.next()) {
            kinds.push(packet.kind);
            if (packet.kind === "startup") {
              expect(packet.body.equals(startup.subarray(8))).toBe(true);
              rest.push(reader.takeRest());
              break;
            }
          }
        }
        expect(kinds).toEqual(["ssl-request", "startup"]);
        expect(Buffer.concat(rest).toString()).toBe("rest");
      }),
    );
  });

  test("a cancel request gives its numbers, signs included", () => {
    const reader = new StartupReader();
    reader.push(encodeCancelRequest(-5, 2_147_483_647));
    expect(reader.next()).toEqual({ kind: "cancel", processId: -5, secretKey: 2_147_483_647 });
  });

  test.each([
    ["a length of 0", Buffer.alloc(4)],
    ["a length below the code", Buffer.from([0, 0, 0, 7])],
    ["a length over PostgreSQL's own limit", Buffer.from([0, 0, 0x27, 0x11])],
    ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\n")],
    ["a TLS hello without a request", Buffer.from([0x16, 3, 1, 2])],
    ["protocol 2", Buffer.from([0, 0, 0, 8, 0, 2, 0, 0])],
    [
      "an SSLRequest with more in it",
      Buffer.concat([Buffer.from([0, 0, 0, 9]), encodeSslRequest().subarray(4), Buffer.alloc(1)]),
    ],
    [
      "a cancel request with a long key",
      Buffer.concat([Buffer.from([0, 0, 0, 20]), encodeCancelRequest(1, 2).subarray(4), Buffer.alloc(4)]),
    ],
  ])("%s is refused as soon as it is visible", (_name, bytes) => {
    const reader = new StartupReader();
    reader.push(bytes);
    expect(() => reader.next()).toThrow(expect.objectContaining({ code: "protocol.violation", whose: "client" }));
  });
});
