/** A small stdio server of JSON-RPC with bad habits on demand: a test peer of `sallyport run`. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { writeFileSync } from "node:fs";

interface Request {
  readonly id?: string | number;
  readonly method?: string;
  readonly params?: { readonly [key: string]: unknown };
}

/** Methods of the notifications that came. */
const notes: string[] = [];

function write(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** A child that ignores SIGTERM, in a session of its own, that writes its pid; and a plain one. */
function plantTree(pidFile: string): void {
  const stubborn = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log(process.pid)";
  const pids = [true, false].map((detached) => {
    const child = spawn(process.execPath, ["-e", stubborn], { detached, stdio: "ignore" });
    child.unref();
    return child.pid;
  });
  const shell = spawn("/bin/sh", ["-c", "sleep 1000 & echo $!; wait"], { stdio: ["ignore", "pipe", "ignore"] });
  shell.stdout.once("data", (data: Buffer) => {
    writeFileSync(pidFile, JSON.stringify([process.pid, ...pids, shell.pid, Number(data.toString())]));
  });
}

/**
 * A daemon: in a session of its own, its parents gone, nothing of this process in its environment. Its last parent lives for
 * `ms` before it lets go.
 */
function plantDaemon(pidFile: string, ms: number): void {
  const parent = 'sleep 1000 & echo $! >"$0"; sleep "$1"';
  const daemon = spawn(
    "/bin/sh",
    ["-c", 'setsid /bin/sh -c "$0" "$1" "$2" & sleep 0.1', parent, pidFile, String(ms / 1000)],
    {
      env: { PATH: "/usr/bin:/bin" },
      detached: true,
      stdio: "ignore",
    },
  );
  daemon.unref();
}

function handle(text: string, request: Request): void {
  const { id, method: sent, params = {} } = request;
  // As careless servers do it: the last word decides, with or without an id.
  const method = sent === "notifications/cancelled" ? sent : sent?.split("/").at(-1);
  if (id === undefined && sent?.startsWith("notifications/") === true) {
    notes.push(sent);
  }
  const reply = (result: unknown): void => write({ jsonrpc: "2.0", id, result });
  switch (method) {
    case "hang":
    case "notifications/cancelled":
      return;
    case "echo":
      return reply({ line: text });
    case "notes":
      return reply({ methods: notes });
    case "environment":
      return reply({ arguments: process.argv.slice(2), environment: process.env });
    case "tool-error":
      return reply({ isError: true, content: [] });
    case "fail":
      return write({ jsonrpc: "2.0", id, error: { code: -1, message: "no" } });
    case "late":
      setTimeout(() => reply({}), Number(params["ms"]));
      return;
    case "raw":
      process.stdout.write(String(params["text"]));
      return;
    case "exit":
      return process.exit(Number(params["code"]));
    case "kill":
      process.kill(process.pid, "SIGKILL");
      return;
    case "tree":
      plantTree(String(params["pidFile"]));
      return reply({});
    case "daemon":
      plantDaemon(String(params["pidFile"]), Number(params["ms"]));
      return reply({});
    case "long":
      process.stdout.write(`{"jsonrpc":"2.0","id":${id},"result":{"text":"${"x".repeat(Number(params["bytes"]))}"}}\n`);
      return;
    default:
      if (id !== undefined && method !== undefined) {
        reply({});
      }
  }
}

if (process.argv.includes("--ignore-sigterm")) {
  process.on("SIGTERM", () => {});
}
const keepAlive = process.argv.includes("--stay") ? setInterval(() => {}, 1000) : null;
createInterface({ input: process.stdin }).on("line", (text) => {
  const value: unknown = JSON.parse(text);
  for (const request of Array.isArray(value) ? value : [value]) {
    handle(text, request);
  }
});
process.stdin.on("end", () => {
  if (keepAlive === null) {
    process.exit(0);
  }
});
