/**
 * `sallyport run` as a process of its own with a control endpoint in memory, for tests that kill it or drive it with a real client.
 * RUN_CONNECTION holds the connection details as JSON; with RUN_LOG set, what was recorded is appended there, a JSON line each.
 */
import { appendFileSync } from "node:fs";
import { runSession } from "#cli/run-session.ts";
import { readTemplate } from "#cli/run-placeholders.ts";
import { FakeControl } from "./fake-control.ts";

const control = new FakeControl(JSON.parse(process.env["RUN_CONNECTION"] ?? "{}"));
const log = process.env["RUN_LOG"];
if (log !== undefined) {
  const push = control.lines.push.bind(control.lines);
  control.lines.push = (...lines) => {
    lines.forEach((line) => appendFileSync(log, `${JSON.stringify(line)}\n`));
    return push(...lines);
  };
}
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => stop.abort(signal));
}
const separator = process.argv.indexOf("--");
process.exitCode = await runSession(
  {
    control,
    stdin: process.stdin,
    stdout: process.stdout,
    note: (text) => process.stderr.write(`sallyport run: ${text}\n`),
    environment: process.env,
    stop: stop.signal,
  },
  {
    principal: "support-copilot",
    resource: "billing",
    task: "T-88 charged twice",
    template: readTemplate(process.argv.slice(separator + 1), process.argv.slice(2, separator)),
    serializeCalls: false,
  },
);
