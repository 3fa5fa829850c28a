/** A shell at the end of a pipe: when this process is killed, the pipe breaks, and the shell ends what the run has left. */
import { spawn } from "node:child_process";
import type { Writable } from "node:stream";

/** The mark in the environment of the server's tree: the run's id, which is no secret and opens nothing. */
export const markVariable = "SALLYPORT_RUN_ID";

/**
 * Reads a word a line: the process group, the processes seen in the tree (`pid:start time`), the all-clear. When the pipe breaks
 * before the all-clear, it ends the group and the processes, then whatever still carries the mark, and removes the directory
 * with the password file.
 */
const script = `
mark=$1 directory=$2 group= seen=
while read -r word rest; do
  case $word in
    group) group=$rest ;;
    seen) seen=$rest ;;
    clear) exit 0 ;;
  esac
done
[ -n "$directory" ] && rm -rf -- "$directory"
started() {
  stat=$(cat "/proc/$1/stat") || return
  set -- \${stat##*) }
  echo "\${20}"
}
end() {
  [ -n "$group" ] && kill "-$1" -- "-$group"
  for one in $seen; do
    [ "$(started "\${one%:*}")" = "\${one#*:}" ] && kill "-$1" "\${one%:*}"
  done
}
if [ -n "$group$seen" ]; then
  end TERM
  sleep 1
  end KILL
fi
if [ -d /proc/self ]; then
  for file in $(grep -lsaF "$mark" /proc/[0-9]*/environ); do
    pid=\${file#/proc/}
    kill -KILL "\${pid%/environ}"
  done
fi
[ -n "$directory" ] && rm -rf -- "$directory"
`;

/** The guard of one run. Owned by the run's session, which disarms it when nothing is left to be ended. */
export class RunGuard {
  readonly #pipe: Writable;

  private constructor(pipe: Writable) {
    this.#pipe = pipe;
  }

  /** @param directory removed with all that is in it when this process is killed. */
  static arm(mark: string, directory: string | null): RunGuard {
    const guard = spawn("/bin/sh", ["-c", script, "sallyport-run-guard", `${markVariable}=${mark}`, directory ?? ""], {
      cwd: "/",
      env: { PATH: "/usr/bin:/bin" },
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
    guard.on("error", () => {});
    guard.stdin.on("error", () => {});
    guard.unref();
    return new RunGuard(guard.stdin);
  }

  /** What it would end from now on. */
  cover(group: number | null, seen: readonly string[]): void {
    this.#pipe.write(`group ${group ?? ""}\nseen ${seen.join(" ")}\n`);
  }

  disarm(): void {
    this.#pipe.end("clear\n");
  }
}
