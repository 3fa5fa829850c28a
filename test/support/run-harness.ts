/** `sallyport run` in this process, between streams of a test. */
import { createInterface } from "node:readline";
import { PassThrough } from "node:stream";
import { join } from "node:path";
import type { StopSignal } from "#cli/run-session.ts";
import { runSession } from "#cli/run-session.ts";
import { readTemplate } from "#cli/run-placeholders.ts";
import { FakeControl } from "./fake-control.ts";

export const rpcServer = join(import.meta.dirname, "rpc-server.ts");

export interface RunHarness {
  readonly control: FakeControl;
  readonly stdin: PassThrough;
  /** Lines that the client has got, oldest first. */
  readonly received: string[];
  readonly notes: string[];
  readonly exit: Promise<number>;
  /** Sends one line. */
  readonly send: (line: unknown) => void;
  /** Waits for the `count`th line, from 1, parsed. */
  readonly answer: (count: number) => Promise<RpcAnswer>;
  readonly stop: (signal: StopSignal) => void;
}

export interface RpcAnswer {
  readonly id?: unknown;
  readonly result?: { readonly [key: string]: unknown };
  readonly error?: {
    readonly code: number;
    readonly message: string;
    readonly data?: { readonly [key: string]: unknown };
  };
}

export interface HarnessOptions {
  readonly control?: FakeControl;
  readonly command?: readonly string[];
  readonly variables?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly serializeCalls?: boolean;
}

export function startRunHarness(options: HarnessOptions = {}): RunHarness {
  const control = options.control ?? new FakeControl();
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  const received: string[] = [];
  const waiting: (() => void)[] = [];
  createInterface({ input: stdout }).on("line", (line) => {
    received.push(line);
    waiting.splice(0).forEach((wake) => wake());
  });
  const notes: string[] = [];
  const stop = new AbortController();
  const exit = runSession(
    {
      control,
      stdin,
      stdout,
      note: (text) => notes.push(text),
      environment: { PATH: process.env["PATH"] ?? "", ...options.environment },
      stop: stop.signal,
    },
    {
      principal: "support-copilot",
      resource: "billing",
      task: "T-88 charged twice",
      template: readTemplate(options.command ?? [process.execPath, rpcServer], options.variables ?? []),
      serializeCalls: options.serializeCalls ?? false,
    },
  );
  // A test that expects a rejection awaits `exit`; until then it must not end the worker.
  exit.catch(() => {});
  return {
    control,
    stdin,
    received,
    notes,
    exit,
    send: (line) => stdin.write(typeof line === "string" ? `${line}\n` : `${JSON.stringify(line)}\n`),
    answer: async (count) => {
      while (received.length < count) {
        await new Promise<void>((wake) => waiting.push(wake));
      }
      // A test peer's own output: its shape is what the test asserts.
      return JSON.parse(received[count - 1] ?? "null") as RpcAnswer;
    },
    stop: (signal) => stop.abort(signal),
  };
}

export function request(id: number | string, method: string, params?: unknown): unknown {
  return params === undefined ? { jsonrpc: "2.0", id, method } : { jsonrpc: "2.0", id, method, params };
}
