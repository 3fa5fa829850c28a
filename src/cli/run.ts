/**
 * `sallyport run`: starts a stdio MCP server with a credential of its own and stands between it and its client.
 * stdout carries the protocol and nothing else; everything for people goes to stderr. docs/run.md is the guide.
 */
import { createControlClient } from "#api/client.ts";
import { loadControlToken } from "#config-secrets.ts";
import { loadControlPlace } from "#config-place.ts";
import { SallyportError } from "#domain/errors.ts";
import { configDefault } from "./context.ts";
import { exitCodeOf } from "./exit-codes.ts";
import { readTemplate } from "./run-placeholders.ts";
import { type StopSignal, runSession } from "./run-session.ts";

export interface RunOptions {
  /** Name of the principal who acts. */
  readonly as: string;
  /** Title or ticket of the task; it names one active grant of the principal on the resource. */
  readonly task: string;
  /** Name of the resource. */
  readonly resource: string;
  /** `NAME=VALUE` for the server's environment; placeholders may stand in the value. */
  readonly env?: readonly string[] | undefined;
  readonly serializeCalls?: boolean | undefined;
  /** Path of the configuration, for where the gateway is. */
  readonly config?: string | undefined;
  /** Notes on stderr as one JSON object a line. */
  readonly json?: boolean | undefined;
}

const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const satisfies readonly StopSignal[];

/** Runs the server until it ends, and resolves with the exit code: the server's, 128 + n for signal n, or one of ours. */
export async function runCommand(options: RunOptions, command: readonly string[]): Promise<number> {
  const note = (text: string): void => {
    process.stderr.write(options.json === true ? `${JSON.stringify({ note: text })}\n` : `sallyport run: ${text}\n`);
  };
  const stop = new AbortController();
  const listeners = stopSignals.map((signal) => {
    const listener = (): void => stop.abort(signal);
    process.on(signal, listener);
    return { signal, listener };
  });
  try {
    const template = readTemplate(command, options.env ?? []);
    const place = loadControlPlace(options.config ?? configDefault);
    const token = await loadControlToken(place.tokenFile);
    await using control = createControlClient({ ...place.address, token: token.reveal() });
    return await runSession(
      { control, stdin: process.stdin, stdout: process.stdout, note, environment: process.env, stop: stop.signal },
      {
        principal: options.as,
        resource: options.resource,
        task: options.task,
        template,
        serializeCalls: options.serializeCalls ?? false,
      },
    );
  } catch (error) {
    if (!(error instanceof SallyportError)) {
      throw error;
    }
    report(error, options.json === true);
    return exitCodeOf(error);
  } finally {
    for (const { signal, listener } of listeners) {
      process.off(signal, listener);
    }
  }
}

/** The last words of a run that never began: what is wrong, and what to do about it. */
function report(error: SallyportError, json: boolean): void {
  const { code, message, nextStep } = error;
  const decisionId = "decisionId" in error && typeof error.decisionId === "string" ? error.decisionId : null;
  if (json) {
    process.stderr.write(`${JSON.stringify({ error: { code, message, nextStep, decisionId } })}\n`);
    return;
  }
  const reference = decisionId === null ? "" : ` · ${decisionId}`;
  process.stderr.write(
    `sallyport run: ${message} (${code})${reference}\n${nextStep === null ? "" : `  ${nextStep}\n`}`,
  );
}
