/** The program itself, as a child: it gets the terminal, the signals and the arguments, and its end is this process's end. */
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";

const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2"];

/** Runs a program with `node` and ends as it ends: with its exit code, or by the signal that ended it. */
export async function runProgram(root, node, nodeArguments) {
  const child = spawn(node, nodeArguments, { stdio: "inherit", env: programEnvironment(root, node) });
  const forwards = signals.map((signal) => [signal, () => forward(child, signal)]);
  for (const [signal, handler] of forwards) {
    process.on(signal, handler);
  }
  const [code, signal] = await new Promise((settle, fail) => {
    child.once("error", fail);
    child.once("exit", (...how) => settle(how));
  });
  for (const [name, handler] of forwards) {
    process.removeListener(name, handler);
  }
  if (signal === null) {
    process.exitCode = code;
  } else {
    process.kill(process.pid, signal);
  }
}

/** Ctrl-C in a terminal reaches the child by itself; twice would read as "at once". */
function forward(child, signal) {
  const fromTerminal = process.stdin.isTTY && (signal === "SIGINT" || signal === "SIGQUIT");
  if (!fromTerminal) {
    child.kill(signal);
  }
}

/** The environment in which `node` is that Node, for the program and whatever it starts. */
export function programEnvironment(root, node) {
  return {
    ...process.env,
    PATH: `${dirname(node)}:${process.env["PATH"] ?? "/usr/bin:/bin"}`,
    NODE: node,
    npm_node_execpath: node,
    NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? join(root, ".cache", "compile"),
  };
}
