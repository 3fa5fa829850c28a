import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** Runs the demo as a process of its own, with the arguments as given, and resolves with its exit code. */
export async function demo(given: readonly string[]): Promise<number> {
  const program = fileURLToPath(new URL("../../demo/main.ts", import.meta.url));
  const child = spawn(process.execPath, [program, ...given], { stdio: "inherit" });
  // The terminal sends its Ctrl-C to the demo too, which then stops what it started; this process waits for that.
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  const wait = (): void => {};
  process.on("SIGTERM", forward);
  process.on("SIGINT", wait);
  try {
    return await new Promise<number>((settle, fail) => {
      child.once("error", fail);
      child.once("exit", (code, signal) => settle(code ?? (signal === "SIGINT" ? 130 : 1)));
    });
  } finally {
    process.off("SIGTERM", forward);
    process.off("SIGINT", wait);
  }
}
