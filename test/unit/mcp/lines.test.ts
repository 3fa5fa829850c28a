import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Line, LineDecoder } from "#protocols/mcp/lines.ts";

function feed(decoder: LineDecoder, bytes: Uint8Array, cuts: readonly number[]): readonly Line[] {
  const lines: Line[] = [];
  let start = 0;
  for (const cut of [...cuts, bytes.length].toSorted((a, b) => a - b)) {
    lines.push(...decoder.push(bytes.subarray(start, cut)));
    start = cut;
  }
  return lines;
}

describe("the line decoder", () => {
  test("gives the same bytes back, however they were cut", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "é", "\n", "\r", "{}", ""), maxLength: 40 });
    fc.assert(
      fc.property(text, fc.array(fc.nat({ max: 60 }), { maxLength: 8 }), (value, cuts) => {
        const bytes = Buffer.from(value, "utf8");
        const decoder = new LineDecoder(1000);
        const lines = feed(
          decoder,
          bytes,
          cuts.map((cut) => Math.min(cut, bytes.length)),
        );
        const whole = bytes.subarray(0, bytes.lastIndexOf(0x0a) + 1);
        expect(Buffer.concat(lines.map((line) => (line.kind === "line" ? line.bytes : Buffer.from("?"))))).toEqual(
          whole,
        );
        for (const line of lines) {
          expect(line.kind === "line" ? line.bytes.indexOf(0x0a) : -2).toBe(
            line.kind === "line" ? line.bytes.length - 1 : -1,
          );
        }
        const rest = bytes.length - whole.length;
        expect(decoder.end()).toEqual(rest === 0 ? null : { kind: "unterminated", lengthBytes: rest });
      }),
      { numRuns: 3000 },
    );
  });

  test("drops exactly the lines that are longer than the limit, at every cut", () => {
    const longest = "x".repeat(10);
    const tooLong = "y".repeat(11);
    const bytes = Buffer.from(`${longest}\n${tooLong}\n${longest}\n`, "utf8");
    for (let first = 0; first <= bytes.length; first += 1) {
      for (let second = first; second <= bytes.length; second += 1) {
        const lines = feed(new LineDecoder(10), bytes, [first, second]);
        expect(lines.map((line) => line.kind)).toEqual(["line", "too-long", "line"]);
        const [, dropped] = lines;
        if (dropped?.kind === "too-long") {
          expect(dropped.lengthBytes).toBe(12);
          expect(Buffer.from(dropped.head).toString()).toBe(`${tooLong}\n`);
          expect(Buffer.from(dropped.tail).toString()).toBe(`${tooLong}\n`);
        }
      }
    }
  });

  test("keeps the first and last bytes of a long line, and no more of it", () => {
    const decoder = new LineDecoder(100_000);
    const piece = Buffer.alloc(64 * 1024, 0x61);
    for (let i = 0; i < 100; i += 1) {
      expect(decoder.push(piece)).toEqual([]);
    }
    const [line] = decoder.push(Buffer.from("end\n"));
    expect(line?.kind).toBe("too-long");
    if (line?.kind === "too-long") {
      expect(line.lengthBytes).toBe(100 * piece.length + 4);
      expect(line.head.length).toBe(1024);
      expect(line.tail.length).toBe(1024);
      expect(Buffer.from(line.tail).toString().endsWith("aend\n")).toBe(true);
    }
  });

  test("takes a long line byte by byte at a cost that grows with its length only", () => {
    const decoder = new LineDecoder(2_000_000);
    const startedMs = performance.now();
    const byte = Buffer.from("z");
    for (let i = 0; i < 1_000_000; i += 1) {
      decoder.push(byte);
    }
    const [line] = decoder.push(Buffer.from("\n"));
    expect(line?.kind === "line" ? line.bytes.length : 0).toBe(1_000_001);
    expect(performance.now() - startedMs).toBeLessThan(5000);
  });

  test("a line that was handed out does not change afterwards", () => {
    const decoder = new LineDecoder(100);
    decoder.push(Buffer.from("first"));
    const [first] = decoder.push(Buffer.from(" line\n"));
    decoder.push(Buffer.from("second"));
    decoder.push(Buffer.from(" one\n"));
    expect(first?.kind === "line" ? Buffer.from(first.bytes).toString() : "").toBe("first line\n");
  });
});
