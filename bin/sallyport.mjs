#!/usr/bin/env node
/** The `sallyport` command. When everything is in place it costs one import; otherwise the bootstrap sees to it first. */
import * as module from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ensureDependencies, hasDependencies } from "../scripts/bootstrap/dependencies.mjs";
import { runProgram } from "../scripts/bootstrap/program.mjs";
import { reportProblem } from "../scripts/bootstrap/report.mjs";
import { ensureNode, isNewEnough } from "../scripts/bootstrap/runtime.mjs";

const root = join(fileURLToPath(import.meta.url), "../..");

if (isNewEnough(process.version) && (await hasDependencies(root))) {
  module.enableCompileCache(process.env["NODE_COMPILE_CACHE"] ?? join(root, ".cache", "compile"));
  await import("../src/cli/main.ts");
} else {
  try {
    const node = await ensureNode(root);
    await ensureDependencies(root);
    await runProgram(root, node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)]);
  } catch (error) {
    reportProblem(error);
    process.exitCode = 1;
  }
}
