/**
 * The entry point of the command line: what `bin/sallyport.mjs` loads. The version is answered before anything else is read,
 * and each verb loads only what it needs: a command line that takes its time is not used.
 */
import { programVersion } from "./version.ts";

const given = process.argv.slice(2);

if (given.length === 1 && (given[0] === "--version" || given[0] === "-V")) {
  process.stdout.write(`${programVersion()}\n`);
} else {
  const { runCli } = await import("./program.ts");
  process.exitCode = await runCli(given, {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    environment: process.env,
  });
}
