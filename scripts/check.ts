/** `npm run check`: format, lint, types and unit tests, in under a minute. All are run, and all failures shown. */
import { join } from "node:path";
import { root, runNode, vitest } from "./run-steps.ts";

const steps: readonly (readonly [name: string, parameters: readonly string[]])[] = [
  ["format", [join(root, "node_modules/oxfmt/bin/oxfmt"), "--check"]],
  ["lint", [join(root, "node_modules/oxlint/bin/oxlint"), "--type-aware"]],
  ["types", [join(root, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.json"]],
  ["unit tests", [vitest, "run", "--project=unit", "--reporter=dot"]],
];

for (const [name, parameters] of steps) {
  const startMs = performance.now();
  const { code, output } = await runNode(parameters, "kept");
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  process.stdout.write(`${code === 0 ? "✓" : "✗"} ${name.padEnd(23)} ${seconds} s\n`);
  if (code !== 0) {
    process.stdout.write(`${output.trimEnd()}\n`);
    process.exitCode = 1;
  }
}
