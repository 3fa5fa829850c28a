/**
 * `npm run test:full`: the tests that need Debian packages. What is missing is named and left out; with CI=true it is
 * installed, and when that cannot be done, nothing is run and the run fails.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Requirement, requirements } from "../test/support/requirements.ts";
import { runNode, vitest } from "./run-steps.ts";

const execFileAsync = promisify(execFile);

const missing = findMissing();
if (process.env["CI"] !== "true") {
  for (const { name, debianPackages } of missing) {
    process.stderr.write(
      `! ${name} is missing, and its tests are left out: apt-get install ${debianPackages.join(" ")}\n`,
    );
  }
  await runTests();
} else if (missing.length === 0) {
  await runTests();
} else {
  await install(missing);
  const stillMissing = findMissing();
  for (const { name } of stillMissing) {
    process.stderr.write(`✗ ${name} is missing, and could not be installed\n`);
  }
  if (stillMissing.length === 0) {
    await runTests();
  } else {
    process.exitCode = 1;
  }
}

function findMissing(): readonly Requirement[] {
  return requirements.filter(({ find }) => find() === null);
}

async function install(wanted: readonly Requirement[]): Promise<void> {
  const packages = wanted.flatMap(({ debianPackages }) => debianPackages);
  const options = { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, maxBuffer: 64 * 1024 * 1024 };
  try {
    await execFileAsync("apt-get", ["update", "-q"], options);
    await execFileAsync("apt-get", ["install", "-q", "-y", "--no-install-recommends", ...packages], options);
    process.stderr.write(`✓ installed ${packages.join(" ")}\n`);
  } catch (error) {
    // Not the end yet: whether what is needed is there now is looked at next.
    process.stderr.write(`! apt-get could not install ${packages.join(" ")}: ${String(error)}\n`);
  }
}

async function runTests(): Promise<void> {
  const { code } = await runNode([vitest, "run", "--project=full", ...process.argv.slice(2)], "shown");
  process.exitCode = code ?? 1;
}
