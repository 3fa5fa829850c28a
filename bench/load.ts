/**
 * The load generator: a process of its own that keeps one transaction in flight on each connection.
 * Its job comes on standard input as one JSON object, its result goes to standard output as another.
 */
import { text } from "node:stream/consumers";
import { Connection, message, type Login } from "./wire.ts";

/** What to send, where to, and when it counts. */
export interface LoadJob {
  readonly protocol: "simple" | "prepared";
  /** Connections are spread over the logins in turn. */
  readonly logins: readonly Login[];
  readonly clients: number;
  /** Keys are 1 to this. */
  readonly rows: number;
  /** Epoch milliseconds. Load begins at once; what completes between these two counts. */
  readonly startAtMs: number;
  readonly endAtMs: number;
}

/** What completed inside the window. */
export interface LoadResult {
  readonly transactions: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** The statement of `pgbench -S`. */
export const selectPrefix = "SELECT abalance FROM pgbench_accounts WHERE aid = ";

const requestsKept = 8192;

/** Enough different requests that no answer is remembered by accident; all made before the load begins. */
function makeRequests(protocol: LoadJob["protocol"], rows: number): readonly Buffer[] {
  return Array.from({ length: Math.min(requestsKept, rows) }, () => {
    const aid = String(1 + Math.floor(Math.random() * rows));
    return protocol === "simple" ? message("Q", `${selectPrefix}${aid};`) : execution(aid);
  });
}

/** Bind, Describe, Execute, Sync: what libpq's PQsendQueryPrepared sends, as one write. */
function execution(aid: string): Buffer {
  const parameter = Buffer.alloc(4 + 2 + 4);
  parameter.writeInt16BE(0, 0);
  parameter.writeInt16BE(1, 2);
  parameter.writeInt32BE(aid.length, 4);
  const formats = Buffer.from([0, 1, 0, 0]);
  return Buffer.concat([
    message("B", "", "P0", parameter.subarray(0, 8), Buffer.from(aid), formats),
    message("D", Buffer.from("P"), ""),
    message("E", "", Buffer.alloc(4)),
    message("S"),
  ]);
}

const preparation = Buffer.concat([message("P", "P0", `${selectPrefix}$1;`, Buffer.alloc(2)), message("S")]);

/** Runs the job. @throws Error when a transaction fails or returns anything but one row, or when warming up took too long. */
export async function runLoad(job: LoadJob): Promise<LoadResult> {
  const connections = await Promise.all(
    Array.from({ length: job.clients }, (_, i) => {
      const login = job.logins[i % job.logins.length];
      if (login === undefined) {
        throw new Error("a load needs a login");
      }
      return Connection.open(login);
    }),
  );
  const requests = makeRequests(job.protocol, job.rows);
  const latenciesUs: number[] = [];
  try {
    await Promise.all(connections.map((connection, i) => drive(connection, job, requests, i * 257, latenciesUs)));
  } finally {
    for (const connection of connections) {
      connection.close();
    }
  }
  return { transactions: latenciesUs.length, ...percentiles(latenciesUs) };
}

async function drive(
  connection: Connection,
  job: LoadJob,
  requests: readonly Buffer[],
  first: number,
  latenciesUs: number[],
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const startAt = job.startAtMs - performance.timeOrigin;
  const endAt = job.endAtMs - performance.timeOrigin;
  let next = first;
  let sentAt = performance.now();
  if (sentAt >= startAt) {
    throw new Error("connecting took longer than the warm-up: make it longer");
  }
  let isPreparing = job.protocol === "prepared";
  const send = (bytes: Buffer): void => {
    sentAt = performance.now();
    connection.send(bytes);
  };
  connection.onReady((rows, error) => {
    const now = performance.now();
    if (error !== null || (!isPreparing && rows !== 1)) {
      reject(new Error(error ?? `a transaction returned ${rows} rows`));
      return;
    }
    if (now >= endAt) {
      resolve(undefined);
      return;
    }
    if (!isPreparing && now >= startAt) {
      latenciesUs.push((now - sentAt) * 1000);
    }
    isPreparing = false;
    next = (next + 1) % requests.length;
    const bytes = requests[next];
    if (bytes !== undefined) {
      send(bytes);
    }
  }, reject);
  const bytes = isPreparing ? preparation : requests[next % requests.length];
  if (bytes !== undefined) {
    send(bytes);
  }
  await promise;
}

/** The median and the 99th percentile, to a tenth of a microsecond; 0 for nothing. */
export function percentiles(latenciesUs: readonly number[]): { readonly p50Us: number; readonly p99Us: number } {
  const sorted = Float64Array.from(latenciesUs).sort();
  const at = (share: number): number => {
    const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
    return Math.round(value * 10) / 10;
  };
  return { p50Us: at(0.5), p99Us: at(0.99) };
}

if (import.meta.main) {
  // The job was written by `measure.ts` in the same checkout.
  const job = JSON.parse(await text(process.stdin)) as LoadJob;
  process.stdout.write(`${JSON.stringify(await runLoad(job))}\n`);
}
