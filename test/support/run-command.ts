/** `runCommand` as a process: RUN_OPTIONS is its first argument as JSON, the server's command follows `--`. */
import { type RunOptions, runCommand } from "#cli/run.ts";

// The test's own words, written next to the call.
const options = JSON.parse(process.env["RUN_OPTIONS"] ?? "{}") as RunOptions;
process.exitCode = await runCommand(options, process.argv.slice(process.argv.indexOf("--") + 1));
