/** The user's own npm, with its registry, proxy and certificates as they are configured. */
import { execFile } from "node:child_process";
import { BootstrapError } from "./report.mjs";

const outputBytesMax = 64 * 1024 * 1024;
/** How npm's error codes read when the registry cannot be reached. */
const offlineCodes =
  /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT)\b/;
const certificateCodes = /\b(SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_[A-Z_]+|CERT_[A-Z_]+)\b/;

/**
 * Runs npm and resolves with its stdout.
 * @throws BootstrapError with the next step for: no npm, no registry, wrong integrity, a lock file that does not fit.
 */
export function runNpm(npmArguments, directory) {
  const [file, ...first] = npmCommand();
  const options = { cwd: directory, maxBuffer: outputBytesMax, encoding: "utf8" };
  return new Promise((settle, fail) => {
    execFile(file, [...first, ...npmArguments], options, (error, stdout, stderr) => {
      if (error === null) {
        settle(stdout);
      } else {
        fail(explain(error, npmArguments[0], stdout, stderr));
      }
    });
  });
}

/** Under `npm run`, that same npm with the Node it runs on; otherwise the one on the PATH. */
function npmCommand() {
  const script = process.env["npm_execpath"];
  return script !== undefined && /npm-cli\.[cm]?js$/.test(script) ? [process.execPath, script] : ["npm"];
}

function explain(error, verb, stdout, stderr) {
  if (error.code === "ENOENT") {
    return new BootstrapError("npm is not on the PATH", "install npm (it comes with Node.js), then start again");
  }
  const output = `${stderr}\n${stdout}`;
  const offline = offlineCodes.exec(output);
  if (offline !== null) {
    return new BootstrapError(
      `the npm registry cannot be reached (${offline[0]})`,
      "check the network, and with `npm config list` the registry and proxy; then start again",
    );
  }
  const certificate = certificateCodes.exec(output);
  if (certificate !== null) {
    return new BootstrapError(
      `the npm registry's certificate is not trusted (${certificate[0]})`,
      "name your proxy's certificate in NODE_EXTRA_CA_CERTS or npm's `cafile` setting, then start again",
    );
  }
  if (output.includes("EINTEGRITY")) {
    return new BootstrapError(
      "the registry sent a package that is not the one in the lock file (EINTEGRITY); nothing of it was run",
      "run `npm cache verify` and start again; if it stays so, do not trust that registry",
    );
  }
  if (output.includes("EUSAGE")) {
    return new BootstrapError(
      "package.json and package-lock.json do not fit together",
      "run `npm install` if you changed package.json; otherwise restore both files",
    );
  }
  const lastLines = stderr.trim().split("\n").slice(-6).join("\n  ");
  return new BootstrapError(`npm ${verb} failed:\n  ${lastLines}`, "put right what npm names, then start again");
}
