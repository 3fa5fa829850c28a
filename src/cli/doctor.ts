import { readdir, stat, statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { join, relative } from "node:path";
import type { Address } from "#config-address.ts";
import { type NodePlaces, nodePlaces } from "#config-secrets.ts";
import { loadControlPlace } from "#config-place.ts";
import { type Config, loadConfig, unsetVariableOf } from "#config.ts";
import { ConfigError, type ConfigProblem } from "#config-problems.ts";
import type { StatusView } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import { configFile, withGateway } from "./context.ts";
import { exitCodes } from "./exit-codes.ts";
import { type CliIo, type CommonOptions, type Output, clean, counted, table } from "./output.ts";
import { describeResourceState, fixOfPublicRight } from "./resource-findings.ts";

/** One thing that was looked at. A `failure` stops the gateway from working, a `warning` does not. */
export interface Finding {
  readonly area: string;
  readonly verdict: "ok" | "warning" | "failure";
  readonly found: string;
  /** What to do; null when nothing need be done. */
  readonly fix: string | null;
}

/** The oldest Node.js whose type stripping runs this program. */
const nodeMajorMin = 24;
const freeBytesFailure = 64 * 1024 * 1024;
const freeBytesWarning = 1024 * 1024 * 1024;

/** `sallyport doctor`: `{ok, findings: Finding[]}`. Exit code 1 when there is a failure among them. */
export async function doctor(options: CommonOptions, io: CliIo, output: Output): Promise<number> {
  const findings: Finding[] = [examineRuntime(process.versions.node)];
  const file = configFile(options, io);
  const { config, places, found, unset } = examineConfig(file, io);
  if (places === null) {
    findings.push(...found, ...unset.map(failureOf));
  } else {
    const gateway = await examineGateway(options, io);
    const { status, isRunning } = gateway;
    findings.push(...found, ...(status === null ? unset.map(failureOf) : notChecked(unset)));
    findings.push(...(await examineSecrets(places)), gateway.finding);
    if (!isRunning && config !== null) {
      findings.push(...(await examinePort("port", "postgres", config.listen.postgres)));
      findings.push(...(await examinePort("port", "control", config.listen.control)));
    }
    findings.push(...(await examineDatabases(config, status, output)));
    findings.push(...(await examineLedger(places, status)), ...(await examineDisk(places)));
  }
  const failures = findings.filter((one) => one.verdict === "failure").length;
  const warnings = findings.filter((one) => one.verdict === "warning").length;
  const ok = failures === 0;
  const tones = { ok: "ok", warning: "warning", failure: "failure" } as const;
  const [header = "", ...rows] = table(
    ["", "AREA", "FOUND"],
    findings.map((one) => [one.verdict, one.area, one.found]),
  );
  const lines = rows.flatMap((row, index) => {
    const one = findings[index];
    const text = one === undefined ? row : row.replace(one.verdict, output.tone(tones[one.verdict], one.verdict));
    return one === undefined || one.fix === null ? [text] : [text, `         fix: ${clean(one.fix)}`];
  });
  output.result({ ok, findings }, [
    header,
    ...lines,
    "",
    `${counted(failures, "failure")}, ${counted(warnings, "warning")}`,
  ]);
  return ok ? exitCodes.ok : exitCodes.failure;
}

/** Whether this Node.js runs the gateway. */
export function examineRuntime(version: string): Finding {
  const isNew = Number(version.split(".")[0]) >= nodeMajorMin;
  return isNew
    ? { area: "runtime", verdict: "ok", found: `Node.js ${version}`, fix: null }
    : {
        area: "runtime",
        verdict: "failure",
        found: `Node.js ${version} is too old`,
        fix: `install Node.js ${nodeMajorMin}, or start through bin/sallyport.mjs, which brings it`,
      };
}

interface ConfigFindings {
  readonly config: Config | null;
  readonly places: NodePlaces | null;
  readonly found: readonly Finding[];
  /** Of the problems, those that only say that this shell lacks an environment variable, which the running node has. */
  readonly unset: readonly ConfigProblem[];
}

function examineConfig(file: string, io: CliIo): ConfigFindings {
  try {
    const config = loadConfig(file, { environment: io.environment, nowMs: Date.now() });
    const found = `${file}: ${counted(config.resources.length, "resource")}, ${counted(config.principals.length, "principal")}, ${counted(config.grants.length, "grant")}`;
    return {
      config,
      places: nodePlaces(config.directory),
      found: [{ area: "config", verdict: "ok", found, fix: null }],
      unset: [],
    };
  } catch (error) {
    const places = placesOf(file);
    if (!(error instanceof ConfigError)) {
      return { config: null, places, found: [failureOfError(error)], unset: [] };
    }
    const unset = error.problems.filter((one) => unsetVariableOf(one) !== null);
    const found = error.problems.filter((one) => !unset.includes(one)).map(failureOf);
    return { config: null, places, found, unset };
  }
}

/** Even of a configuration with mistakes, keys and ledger can be looked at. */
function placesOf(file: string): NodePlaces | null {
  try {
    return nodePlaces(loadControlPlace(file).directory);
  } catch {
    // Said already, with its lines, by the caller.
    return null;
  }
}

function failureOf(one: ConfigProblem): Finding {
  const where = one.path === "" ? "" : `${one.path}: `;
  const found = `line ${one.line}, column ${one.column}: ${where}${one.message}`;
  return { area: "config", verdict: "failure", found, fix: one.fix };
}

function failureOfError(error: unknown): Finding {
  if (!(error instanceof SallyportError)) {
    throw error;
  }
  return { area: "config", verdict: "failure", found: error.message, fix: error.nextStep };
}

/** The node has started with what this shell lacks; only the looks from here are left out. */
function notChecked(unset: readonly ConfigProblem[]): readonly Finding[] {
  if (unset.length === 0) {
    return [];
  }
  const names = [...new Set(unset.map((one) => unsetVariableOf(one)))].join(", ");
  const found = `not checked here, as this shell has no ${names}; the running node says what it found of its resources`;
  return [{ area: "config", verdict: "ok", found, fix: null }];
}

async function examineSecrets(places: NodePlaces): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const files = [places.controlToken];
  const names = await readdir(places.keys, { recursive: true }).catch(() => null);
  if (names === null) {
    return [
      {
        area: "keys",
        verdict: "failure",
        found: `${places.keys} cannot be read`,
        fix: "run `sallyport init`, as the account that runs the gateway",
      },
    ];
  }
  files.push(...names.filter((name) => !name.endsWith("verifier.key")).map((name) => join(places.keys, name)));
  for (const path of files) {
    const info = await stat(path).catch(() => null);
    if (info === null) {
      findings.push({
        area: "keys",
        verdict: "failure",
        found: `${path} is missing`,
        fix: "run `sallyport init`: it makes what is missing",
      });
    } else if ((info.mode & 0o077) !== 0) {
      const mode = (info.mode & 0o777).toString(8);
      const fix = `chmod ${info.isDirectory() ? "700" : "600"} ${path}`;
      findings.push({
        area: "keys",
        verdict: "failure",
        found: `${path} is open to other accounts (mode ${mode})`,
        fix,
      });
    } else if (process.getuid !== undefined && info.uid !== process.getuid()) {
      findings.push({
        area: "keys",
        verdict: "warning",
        found: `${path} belongs to account ${info.uid}`,
        fix: "run as the account that runs the gateway",
      });
    }
  }
  if (!names.includes(relative(places.keys, places.rightsKey))) {
    findings.push({
      area: "keys",
      verdict: "failure",
      found: `${places.rightsKey} is missing`,
      fix: "restore it from a copy; without one, run `sallyport init` with a new state store",
    });
  }
  return findings.length > 0
    ? findings
    : [
        {
          area: "keys",
          verdict: "ok",
          found: `${files.length} files in ${places.directory}, closed to others`,
          fix: null,
        },
      ];
}

interface GatewayFindings {
  /** Null when it is not running, or does not answer us. */
  readonly status: StatusView | null;
  readonly isRunning: boolean;
  readonly finding: Finding;
}

async function examineGateway(options: CommonOptions, io: CliIo): Promise<GatewayFindings> {
  const area = "gateway";
  try {
    const status = await withGateway(options, io, (client) => client.status());
    const found = `running, version ${status.version}, ${counted(status.liveSessions, "live session")}`;
    return { status, isRunning: true, finding: { area, verdict: "ok", found, fix: null } };
  } catch (error) {
    if (!(error instanceof SallyportError)) {
      throw error;
    }
    // Without a token it was not asked, and the look at the ports tells whether something is there.
    const isDown = error.code === "gateway.not-running" || error.code.startsWith("secret.");
    const found = error.code === "gateway.not-running" ? "not running" : error.message;
    const finding: Finding = { area, verdict: isDown ? "ok" : "failure", found, fix: error.nextStep };
    return { status: null, isRunning: !isDown, finding };
  }
}

async function examinePort(area: string, name: string, { host, port }: Address): Promise<readonly Finding[]> {
  const code = await new Promise<string | null>((settle) => {
    const probe = createServer();
    probe.once("error", (error) => settle("code" in error ? String(error.code) : "unknown"));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => settle(null)));
  });
  const place = `${name} ${host}:${port}`;
  return [
    code === null
      ? { area, verdict: "ok", found: `${place} is free`, fix: null }
      : {
          area,
          verdict: "failure",
          found: `${place} cannot be had (${code})`,
          fix: `stop the program that has it, or change listen.${name}`,
        },
  ];
}

async function examineDatabases(
  config: Config | null,
  status: StatusView | null,
  output: Output,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  // What the running gateway found by its own trial; it knows more than a look from here.
  for (const one of status?.resources ?? []) {
    const area = `resource ${one.name}`;
    const found = `${one.target}: ${describeResourceState(one)}`;
    findings.push({ area, verdict: "ok", found, fix: null });
    if (one.state === "ready") {
      findings.push(
        ...one.findings.map((text): Finding => ({
          area,
          verdict: "warning",
          found: text,
          fix: fixOfPublicRight(text),
        })),
      );
    }
  }
  if (config === null) {
    return findings;
  }
  const { examineDatabase } = await import("./doctor-database.ts");
  for (const one of config.resources) {
    output.progress(`looking at ${one.name}`);
    findings.push(...(await examineDatabase(`resource ${one.name}`, one.login, "provisioner")));
  }
  if (config.state.kind === "server") {
    findings.push(...(await examineDatabase("state", config.state.login, "state")));
  } else {
    findings.push({
      area: "state",
      verdict: "ok",
      found: "an embedded PostgreSQL, on loopback without TLS",
      fix: null,
    });
  }
  return findings;
}

async function examineLedger(places: NodePlaces, status: StatusView | null): Promise<readonly Finding[]> {
  const area = "ledger";
  if (status !== null) {
    const { ledger } = status;
    return ledger.state === "open"
      ? [
          {
            area,
            verdict: "ok",
            found: `${ledger.size} entries, ${ledger.checkpointSize} under the newest checkpoint`,
            fix: null,
          },
        ]
      : [
          {
            area,
            verdict: "failure",
            found: `it is ${ledger.state}: ${ledger.failure ?? "nothing passes"}`,
            fix: "free the disk or mend it, and start the gateway again",
          },
        ];
  }
  const checkpoint = await stat(join(places.ledger, "checkpoint")).catch(() => null);
  if (checkpoint === null) {
    return [{ area, verdict: "ok", found: "none yet: the first start makes it", fix: null }];
  }
  if (checkpoint.mtimeMs > Date.now() + 1000) {
    const found = `its newest checkpoint was written at ${checkpoint.mtime.toISOString()}, which is in the future`;
    return [{ area: "clock", verdict: "failure", found, fix: "correct this machine's clock" }];
  }
  try {
    const { readLedger } = await import("#ledger/reader.ts");
    const ledger = await readLedger(places.ledger);
    return [
      {
        area,
        verdict: "ok",
        found: `${ledger.size} entries (readable; \`sallyport ledger verify\` checks them)`,
        fix: null,
      },
    ];
  } catch (error) {
    const found = error instanceof SallyportError ? error.message : `${places.ledger} cannot be read`;
    return [
      { area, verdict: "failure", found, fix: "look at it with `sallyport ledger verify`, and restore it from a copy" },
    ];
  }
}

async function examineDisk(places: NodePlaces): Promise<readonly Finding[]> {
  const space = await statfs(places.directory).catch(() => null);
  if (space === null) {
    return [];
  }
  const freeBytes = space.bavail * space.bsize;
  const found = `${Math.floor(freeBytes / (1024 * 1024))} MiB free for ${places.directory}`;
  const fix = "free some: when the ledger cannot write, nothing passes";
  const verdict = freeBytes < freeBytesFailure ? "failure" : freeBytes < freeBytesWarning ? "warning" : "ok";
  return [{ area: "disk", verdict, found, fix: verdict === "ok" ? null : fix }];
}
