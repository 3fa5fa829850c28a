/**
 * Runs a program of this checkout on the right Node with its dependencies in place:
 *
 *     node scripts/bootstrap.mjs demo/main.ts --json
 *
 * It needs nothing but a Node from 18 and npm: no syntax newer than Node 18, and only builtins, here and in `bootstrap/`.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureDependencies } from "./bootstrap/dependencies.mjs";
import { runProgram } from "./bootstrap/program.mjs";
import { reportProblem } from "./bootstrap/report.mjs";
import { ensureNode } from "./bootstrap/runtime.mjs";

const root = join(fileURLToPath(import.meta.url), "../..");
const [program, ...programArguments] = process.argv.slice(2);

if (program === undefined) {
  process.stderr.write("usage: node scripts/bootstrap.mjs <program> [arguments]\n");
  process.exitCode = 2;
} else {
  try {
    const node = await ensureNode(root);
    await ensureDependencies(root);
    await runProgram(root, node, [join(root, program), ...programArguments]);
  } catch (error) {
    reportProblem(error);
    process.exitCode = 1;
  }
}
