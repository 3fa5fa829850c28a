/**
 * What `.ci/run` runs: `npm test` and `npm run test:full` on a clean checkout. The last line is `N passed, N failed`, over
 * both; the exit code is 1 when a test failed or a tier ran none. Runs on any Node from 18, as the tiers do.
 */
import { spawn } from "node:child_process";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { summarize } from "./summarize.mjs";

const root = join(fileURLToPath(import.meta.url), "../..");
const reports = join(root, ".cache", "ci");
const tiers = ["test", "test:full"];

await rm(reports, { recursive: true, force: true });
await mkdir(reports, { recursive: true });

let passed = 0;
let failed = 0;
for (const tier of tiers) {
  const report = join(reports, `${tier.replace(":", "-")}.json`);
  const exitCode = await run(tier, report);
  const summary = summarize(exitCode, await readFile(report, "utf8").catch(() => null));
  process.stdout.write(`${tier}: ${summary.passed} passed, ${summary.failed} failed\n\n`);
  passed += summary.passed;
  failed += summary.failed;
}
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

function run(tier, report) {
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const child = spawn("npm", ["run", tier, "--", ...reporters], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  return new Promise((settle, fail) => {
    child.once("error", fail);
    child.once("exit", (code) => settle(code));
  });
}
