/** A command line run in this process, its words caught. */
import { PassThrough, Writable } from "node:stream";
import { runCli } from "#cli/program.ts";

export interface CliResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface CliSurroundings {
  readonly environment?: Readonly<Record<string, string>>;
  /** Answers that a person at a terminal types; without it there is no terminal. */
  readonly typed?: string;
}

function catcher(isTTY: boolean): { readonly stream: Writable & { isTTY: boolean }; readonly text: () => string } {
  const chunks: Buffer[] = [];
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      chunks.push(chunk);
      done();
    },
  });
  return { stream: Object.assign(stream, { isTTY }), text: () => Buffer.concat(chunks).toString("utf8") };
}

/** Runs `sallyport` with these arguments. */
export async function sallyport(given: readonly string[], surroundings: CliSurroundings = {}): Promise<CliResult> {
  const isTTY = surroundings.typed !== undefined;
  const out = catcher(isTTY);
  const err = catcher(isTTY);
  const stdin = Object.assign(new PassThrough(), { isTTY });
  if (surroundings.typed !== undefined) {
    stdin.write(surroundings.typed);
  }
  const environment = surroundings.environment ?? {};
  const code = await runCli(given, { stdin, stdout: out.stream, stderr: err.stream, environment });
  return { code, out: out.text(), err: err.text() };
}

/** The one object on standard output; anything else there fails the test. */
export function onlyObject(result: CliResult): Record<string, unknown> {
  const lines = result.out.split("\n");
  if (lines.length !== 2 || lines[1] !== "") {
    throw new Error(`not one line: ${result.out}`);
  }
  const value: Record<string, unknown> = JSON.parse(lines[0] ?? "");
  return value;
}
