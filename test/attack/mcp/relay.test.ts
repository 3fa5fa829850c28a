/** Whatever the client and the server send, in whatever order and with whatever failures of the gateway, law 1 holds for calls. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CloseCallInput, OpenCallInput } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import { type CallId, type RunId, idSource } from "#domain/ids.ts";
import { LineDecoder } from "#protocols/mcp/lines.ts";
import { refusedMethod } from "#cli/run-obstacle.ts";
import { Relay } from "#cli/run-relay.ts";

type Step =
  | { readonly from: "client" | "server"; readonly text: string }
  | { readonly from: "gateway"; readonly fails: boolean }
  | { readonly from: "end" };

interface Trace {
  /** In the order in which they happened. */
  readonly events: string[];
  readonly toServer: string[];
  readonly toClient: string[];
}

const ids = fc.constantFrom("1", "2", "3", '"a"');
const request = fc
  .record({ id: ids, method: fc.constantFrom("ping", "tools/list", "x") })
  .map(({ id, method }) => `{"jsonrpc":"2.0","id":${id},"method":"${method}"}`);
const notification = fc
  .constantFrom("notifications/initialized", "notifications/x", "tools/call")
  .map((method) => `{"jsonrpc":"2.0","method":"${method}"}`);
const cancellation = ids.map(
  (id) => `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}}}`,
);
const result = ids.map((id) => `{"jsonrpc":"2.0","id":${id},"result":{}}`);
const failure = ids.map((id) => `{"jsonrpc":"2.0","id":${id},"error":{"code":1,"message":""}}`);
const batch = fc
  .array(fc.oneof(request, notification, result), { minLength: 1, maxLength: 3 })
  .map((all) => `[${all.join(",")}]`);
const garbage = fc.constantFrom(
  "",
  "{",
  "null",
  "[]",
  '{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}',
  '{"jsonrpc":"2.0","ID":1,"method":"x"}',
);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    from: fc.constant("client" as const),
    text: fc.oneof({ arbitrary: request, weight: 4 }, notification, cancellation, result, batch, garbage),
  }),
  fc.record({
    from: fc.constant("server" as const),
    text: fc.oneof({ arbitrary: result, weight: 4 }, failure, request, notification, batch, garbage),
  }),
  fc.record({ from: fc.constant("gateway" as const), fails: fc.boolean() }),
  { arbitrary: fc.record({ from: fc.constant("end" as const) }), weight: 1 },
);

/** Ids of the requests, or of the responses, in a line that a plain parser reads. */
function idsIn(text: string, kind: "request" | "response"): readonly string[] {
  const value: unknown = JSON.parse(text);
  return (Array.isArray(value) ? value : [value])
    .filter((one: object) => "id" in one && "method" in one === (kind === "request"))
    .map((one: { readonly id: unknown }) => JSON.stringify(one.id));
}

async function play(steps: readonly Step[], serializeCalls: boolean): Promise<Trace> {
  const trace: Trace = { events: [], toServer: [], toClient: [] };
  let fails = false;
  let serial = 0;
  const next = idSource((length) => Uint8Array.from({ length }, () => (serial += 7) & 31));
  const idOfCall = new Map<CallId, string>();
  const pending: string[] = [];
  const tick = (): Promise<void> => new Promise((settle) => setImmediate(settle));
  const refuse = (): SallyportError => new SallyportError("ledger.unavailable", "gateway", "no");
  const control = {
    openCall: async (_: RunId, { method, parameters }: OpenCallInput): Promise<{ callId: CallId }> => {
      await tick();
      if (fails) {
        throw refuse();
      }
      const callId = next("call");
      trace.events.push(`open ${method}${parameters}`);
      if (method !== refusedMethod) {
        idOfCall.set(callId, method);
      }
      return { callId };
    },
    closeCall: async (_: RunId, call: CallId, { status }: CloseCallInput): Promise<void> => {
      await tick();
      if (fails) {
        throw refuse();
      }
      trace.events.push(idOfCall.has(call) ? `close ${status}` : "close refused");
    },
  };
  const relay = new Relay({
    control,
    runId: next("run"),
    server: {
      start: () => void trace.events.push("start"),
      write: async (bytes) => {
        const text = Buffer.from(bytes).toString();
        trace.events.push(`write ${idsIn(text, "request").length}`);
        trace.toServer.push(text);
        await tick();
      },
    },
    client: {
      write: async (bytes) => {
        const text = Buffer.from(bytes).toString();
        trace.events.push(`release ${text}`);
        trace.toClient.push(text);
        await tick();
      },
    },
    note: () => {},
    serializeCalls,
  });
  const decoders = { client: new LineDecoder(10_000), server: new LineDecoder(10_000) };
  const loops = { client: Promise.resolve(), server: Promise.resolve() };
  const end = { code: "run.ended", reason: "the end", nextStep: "" };
  const endings: Promise<void>[] = [];
  for (const one of steps) {
    if (one.from === "end") {
      endings.push(relay.end(end));
      continue;
    }
    if (one.from === "gateway") {
      fails = one.fails;
      await tick();
      continue;
    }
    for (const line of decoders[one.from].push(Buffer.from(`${one.text}\n`))) {
      pending.push(one.text);
      loops[one.from] = loops[one.from].then(() =>
        one.from === "client" ? relay.fromClient(line) : relay.fromServer(line),
      );
    }
    await tick();
  }
  fails = false;
  await Promise.all(Object.values(loops));
  await relay.end(end);
  await Promise.all([...Object.values(loops), ...endings]);
  return trace;
}

describe("the relay", () => {
  test.each([false, true])(
    "forwards nothing that is not recorded, and releases no outcome that is not (one at a time: %s)",
    async (serializeCalls) => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
          const { events, toServer, toClient } = await play(steps, serializeCalls);
          // Only lines of the client reach the server, as they were, and only lines of the server or errors of ours the client.
          const sent = (from: "client" | "server"): ReadonlySet<string> =>
            new Set(steps.flatMap((one) => (one.from === from ? [`${one.text}\n`] : [])));
          expect(toServer.filter((text) => !sent("client").has(text))).toEqual([]);
          expect(toServer.filter((text) => /"method":"(tools\/call|notifications\/x)"/.test(text))).toEqual([]);
          const own = toClient.filter((text) => !sent("server").has(text));
          expect(own.every((text) => text.includes('"error":{"code":-3'))).toBe(true);

          let recorded = 0;
          let forwarded = 0;
          let concluded = 0;
          let released = 0;
          for (const event of events) {
            recorded += event.startsWith("open ") && !event.startsWith(`open ${refusedMethod}`) ? 1 : 0;
            concluded += /^close (ok|error|tool-error|cancelled|lost)$/.test(event) ? 1 : 0;
            forwarded += event.startsWith("write ") ? Number(event.slice(6)) : 0;
            if (event.startsWith("release ") && sent("server").has(event.slice(8))) {
              released += idsIn(event.slice(8), "response").length;
            }
            expect(forwarded).toBeLessThanOrEqual(recorded);
            expect(released).toBeLessThanOrEqual(concluded);
          }
          const answers = toClient.flatMap((text) => idsIn(text, "response")).filter((id) => id !== "null");
          const asked = steps.flatMap((one) =>
            one.from === "client" && one.text.includes('"method"') && isJson(one.text)
              ? idsIn(one.text, "request")
              : [],
          );
          for (const id of new Set(answers)) {
            expect(answers.filter((one) => one === id).length).toBeLessThanOrEqual(
              asked.filter((one) => one === id).length + guessedIds(steps, id),
            );
          }
        }),
        { numRuns: 400 },
      );
    },
  );
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Lines that are refused and whose id can nevertheless be told are answered under it. */
function guessedIds(steps: readonly Step[], id: string): number {
  return steps.filter((one) => one.from === "client" && one.text.includes(`"id":${id},"id"`)).length;
}
