/**
 * A process that writes to a ledger until it is killed. Arguments: the directory, and a number that makes its names its
 * own. Each acknowledged entry is one line on standard output, `<index> <name>`, written before the next is recorded.
 */
import { randomBytes } from "node:crypto";
import { writeSync } from "node:fs";
import { join } from "node:path";

import { openLedger } from "#ledger/append.ts";

const [directory, run] = process.argv.slice(2);
if (directory === undefined || run === undefined) {
  throw new Error("usage: kill-child <directory> <run>");
}

const ledger = await openLedger({
  directory: join(directory, "log"),
  keysDirectory: join(directory, "keys"),
  origin: "kill.example/log",
  clock: { nowMs: () => Date.now(), monotonicUs: () => Math.round(performance.now() * 1000) },
  randomBytes: (length) => randomBytes(length),
  // Publications as often as possible, so that many of the kills fall into one.
  tuning: { integrateAfterMs: 3, integrateEntriesMax: 40 },
});
writeSync(1, "open\n");

async function write(writer: number): Promise<never> {
  for (let i = 0; ; i++) {
    const name = `${run}-${writer}-${i}`;
    const payload = i % 3 === 0 ? { payload: { key: "node", fields: { text: name.repeat(1 + (i % 50)) } } } : {};
    const recorded = await ledger.record({ entry: { type: "node.stopped", reason: name }, ...payload }, name);
    writeSync(1, `${recorded.index} ${recorded.subject}\n`);
  }
}

await Promise.all(Array.from({ length: 6 }, (_, writer) => write(writer)));
