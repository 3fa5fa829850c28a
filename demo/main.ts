/**
 * The demo: everything on this machine, from an empty database to a verified record. It drives two real MCP servers through the
 * gateway with the official client and checks each step; it is a client of the command line and the control endpoint only.
 *
 *     npm run demo [-- --json] [-- --keep]
 */
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ServerKind, connectAgent, dbhub, serverPostgres } from "./agent.ts";
import { configurationText, tasks } from "./configuration.ts";
import { type DemoDatabase, openDemoDatabase } from "./database.ts";
import { type Output, findLeaks } from "./leaks.ts";
import { type DemoGateway, findFreePorts, runVerb, startGateway } from "./processes.ts";
import { countLedger, readEverything, tamperWithCopy, verifyLedger } from "./proof.ts";
import type { Recount } from "./recount.ts";
import { type BillingData, makeBillingData } from "./seed.ts";
import { driveAgent } from "./steps.ts";
import { type Story, createStory } from "./story.ts";

interface Options {
  readonly json: boolean;
  readonly keep: boolean;
}

/** A running stage: everything that the steps need. */
interface Stage {
  readonly story: Story;
  readonly directory: string;
  readonly config: string;
  readonly data: BillingData;
  readonly database: DemoDatabase;
  readonly gateway: DemoGateway;
  readonly verifierKey: string;
  readonly outputs: Output[];
  /** What is taken down at the end, also when the demo is interrupted in the middle. */
  readonly stack: AsyncDisposableStack;
}

/** The last line of `--json`. */
interface Summary {
  readonly toolCalls: number;
  readonly statements: number;
  readonly allowed: number;
  readonly denied: number;
  readonly maskedCells: number;
  readonly linked: number;
  readonly entries: number;
  readonly verified: boolean;
  readonly tamperDetected: boolean;
  readonly seconds: number;
}

/** Of the gateway's own words, shown when the demo fails. */
const gatewayLinesMax = 10;
const grantsLiveMs = 2 * 60 * 60 * 1000;
const usage = `usage: sallyport demo [--json] [--keep]

  --json   the story on standard error, and one JSON object as the last line of standard output
  --keep   leave the gateway running until Ctrl-C

SALLYPORT_DATABASE_URL names a PostgreSQL to use instead of the embedded one (a superuser's URL);
SALLYPORT_POSTGRES_LOG names its log, for the comparison with what it was sent.
`;

const given = process.argv.slice(2).filter((word) => word !== "--");
if (given.some((word) => word === "--help" || word === "-h")) {
  process.stdout.write(usage);
} else if (given.some((word) => !["--json", "--keep"].includes(word))) {
  process.stderr.write(usage);
  process.exitCode = 2;
} else {
  process.exitCode = await main({ json: given.includes("--json"), keep: given.includes("--keep") });
}

/** Runs the demo and takes everything down again, whatever happens. */
async function main(options: Options): Promise<number> {
  const story = createStory(options.json ? process.stderr : process.stdout, process.env);
  const stack = new AsyncDisposableStack();
  const interrupted = new Promise<"interrupted">((settle) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.on(signal, () => settle("interrupted"));
    }
  });
  let code: number;
  try {
    const end = await Promise.race([play(options, story, stack), interrupted]);
    code = end === "interrupted" ? 130 : end.code;
    if (options.keep && end !== "interrupted") {
      code = await keep(end, story, interrupted);
    }
  } catch (error) {
    story.failed("the demo failed", describe(error));
    code = 1;
  }
  await stack.disposeAsync().catch((error: unknown) => {
    story.failed("cleaning up", describe(error));
    code = code === 0 ? 1 : code;
  });
  if (code === 130) {
    // The step that was interrupted may still wait for something that is gone.
    process.exit(code);
  }
  return code;
}

/** How the story ended, and the gateway that it leaves. */
interface Played {
  readonly code: number;
  readonly gateway: DemoGateway;
}

/** Waits for Ctrl-C, or for a gateway that somebody or something else ends. */
async function keep(played: Played, story: Story, interrupted: Promise<"interrupted">): Promise<number> {
  const { code, gateway } = played;
  const how = await Promise.race([gateway.ended, interrupted.then(() => null)]);
  if (how === null) {
    return code;
  }
  story.line("");
  story.failed("the gateway ended", `${how}; the demo's database and files go with it`);
  tellLastWords(gateway, story);
  return 1;
}

async function play(options: Options, story: Story, stack: AsyncDisposableStack): Promise<Played> {
  const startedMs = performance.now();
  story.line(`sallyport demo · Node ${process.versions.node} · nothing leaves this machine`);
  story.line("");
  const stage = await setStage(story, stack);
  try {
    return { code: await playOn(options, stage, startedMs), gateway: stage.gateway };
  } catch (error) {
    if (!stack.disposed) {
      tellLastWords(stage.gateway, story);
    }
    throw error;
  }
}

function tellLastWords(gateway: DemoGateway, story: Story): void {
  const written = gateway.output().trim().split("\n").slice(-gatewayLinesMax).join("\n  ");
  story.line(`\nThe gateway wrote at last:\n  ${written}\n`);
}

async function playOn(options: Options, stage: Stage, startedMs: number): Promise<number> {
  const deviations: string[] = [];
  let toolCalls = 0;
  for (const [kind, task] of [
    [serverPostgres, tasks.serverPostgres],
    [dbhub, tasks.dbhub],
  ] as const) {
    const driven = await drive(stage, kind, task.title);
    deviations.push(...driven.deviations);
    toolCalls += driven.toolCalls;
  }
  if (!options.keep) {
    await stage.gateway.stop();
  }
  const proven = await prove(stage, toolCalls);
  deviations.push(...proven.deviations);
  const summary: Summary = { ...proven.summary, seconds: Math.round((performance.now() - startedMs) / 100) / 10 };
  tellEnd(stage, summary, deviations, options);
  if (options.json) {
    process.stdout.write(`${JSON.stringify(summary)}\n`);
  }
  return deviations.length === 0 ? 0 : 1;
}

async function setStage(story: Story, stack: AsyncDisposableStack): Promise<Stage> {
  const timed = async <T>(what: string, work: () => Promise<T>, detail: (result: T) => string): Promise<T> => {
    const startedMs = performance.now();
    const result = await work();
    story.done(what, detail(result), performance.now() - startedMs);
    return result;
  };
  const directory = await mkdtemp(join(tmpdir(), "sallyport-demo-"));
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  // PostgreSQL of root runs as another account, which must pass through; what is secret in here is closed by itself.
  await chmod(directory, 0o711);

  const url = process.env["SALLYPORT_DATABASE_URL"] || null;
  const database = stack.use(
    await timed(
      url === null ? "embedded PostgreSQL" : "your PostgreSQL",
      () => openDemoDatabase(directory, url, process.env["SALLYPORT_POSTGRES_LOG"] || null),
      (opened) => `${opened.version} at ${opened.address}`,
    ),
  );
  const data = makeBillingData();
  await timed(
    "billing data",
    () => database.load(data),
    () => {
      const { customers, invoices, payments } = data;
      return `${customers.length} customers · ${invoices.length} invoices · ${payments.length} payments · synthetic`;
    },
  );

  const [postgresPort = 0, controlPort = 0] = await findFreePorts(2);
  const config = join(directory, "sallyport.yaml");
  await writeFile(join(directory, "state-url"), database.stateUrl, { mode: 0o600 });
  await writeFile(join(directory, "billing-url"), database.billingUrl, { mode: 0o600 });
  const expiresAtMs = Date.now() + grantsLiveMs;
  await writeFile(
    config,
    configurationText({
      postgresPort,
      controlPort,
      stateUrlFile: "state-url",
      billingUrlFile: "billing-url",
      expiresAtMs,
    }),
  );
  const gateway = stack.use(
    await timed(
      "gateway",
      () => startGateway(config, controlPort, join(directory, "node/control-token")),
      () => `PostgreSQL at 127.0.0.1:${postgresPort} · control at 127.0.0.1:${controlPort}`,
    ),
  );
  // Taken now, and kept apart from the ledger that it will verify.
  const { ledger } = await gateway.control.status();
  story.done("ledger", `${ledger.origin} · key ${ledger.verifierKey.split("+")[1] ?? ""}`);
  return { story, directory, config, data, database, gateway, verifierKey: ledger.verifierKey, outputs: [], stack };
}

async function drive(
  stage: Stage,
  kind: ServerKind,
  task: string,
): Promise<{ readonly deviations: readonly string[]; readonly toolCalls: number }> {
  const { story, gateway, config, data, database, outputs } = stage;
  const grants = await gateway.control.listGrants({});
  const grant = grants.find((one) => one.task === task && one.state !== "ended");
  if (grant === undefined) {
    return { deviations: [`there is no grant for the task ${task}`], toolCalls: 0 };
  }
  const agent = stage.stack.use(await connectAgent(kind, config, task));
  story.line(`\nagent support-copilot (owner bob, task "${task}") with ${agent.title}`);
  const revoke = async (): Promise<void> => {
    const end = await runVerb([
      "grant",
      "revoke",
      grant.id,
      "--yes",
      "--reason",
      "the task is done",
      "--config",
      config,
    ]);
    outputs.push({ from: "sallyport grant revoke", text: end.stdout + end.stderr });
    if (end.code !== 0) {
      throw new Error(`sallyport grant revoke ended with ${end.code}: ${end.stderr}`);
    }
  };
  const deviations = await driveAgent({ agent, data, story, revoke, countInvoices: () => database.count("invoices") });
  await agent[Symbol.asyncDispose]();
  outputs.push(...agent.outputs());
  return { deviations, toolCalls: agent.toolCalls() };
}

interface Proven {
  readonly summary: Omit<Summary, "seconds">;
  readonly deviations: readonly string[];
}

async function prove(stage: Stage, toolCalls: number): Promise<Proven> {
  const { story, directory, database, gateway, verifierKey, data, outputs } = stage;
  const ledger = join(directory, "node/ledger");
  const deviations: string[] = [];
  const check = (what: string, passed: boolean, detail: string): void => {
    if (passed) {
      story.done(what, detail);
    } else {
      story.failed(what, detail);
      deviations.push(`${what}: ${detail}`);
    }
  };
  story.line("");
  const counts = await countLedger(ledger, database.logFile);
  checkCounts(check, counts, toolCalls, database);

  const verification = await verifyLedger(ledger, verifierKey);
  check("verified offline", verification.passed, `${counts.entries} entries · ${verification.words}`);
  const copy = join(directory, "tampered");
  const { file, byte } = await tamperWithCopy(ledger, copy);
  const tampered = await verifyLedger(copy, verifierKey);
  check(
    "tamper check",
    tampered.failed,
    `one bit flipped in a copy (${file}, byte ${byte}) → verification fails, as it must`,
  );
  if (tampered.failed) {
    story.line(`  ${tampered.words}`);
  }

  outputs.push(verification.output, tampered.output, { from: "sallyport up", text: gateway.output() });
  outputs.push({ from: "the ledger", text: await readEverything(ledger) });
  const leaks = findLeaks(data, outputs);
  const secrets = outputs.filter((output) => database.secrets.some((secret) => output.text.includes(secret)));
  const found = [
    ...leaks.map((leak) => `${leak.what} in ${leak.from}`),
    ...secrets.map((output) => `a password in ${output.from}`),
  ];
  check(
    "nothing leaked",
    found.length === 0,
    found.length === 0 ? `${outputs.length} outputs searched for every seeded secret` : found.slice(0, 5).join("; "),
  );

  const { log: _, ...rest } = counts;
  return { summary: { ...rest, verified: verification.passed, tamperDetected: tampered.failed }, deviations };
}

function checkCounts(
  check: (what: string, passed: boolean, detail: string) => void,
  counts: Recount,
  toolCalls: number,
  database: DemoDatabase,
): void {
  const { statements, linked, denied, maskedCells, log } = counts;
  check(
    "recorded",
    counts.toolCalls === toolCalls && denied > 0 && maskedCells > 0,
    `${counts.toolCalls} tool calls (${toolCalls} were made) · ${statements} statements · ${denied} denied · ${maskedCells} values masked`,
  );
  check(
    "linked",
    statements > 0 && linked === statements,
    `${linked} of ${statements} statements belong to the one call that caused them`,
  );
  if (log !== null) {
    check(
      "PostgreSQL's own log",
      log.seen === log.recorded && log.seen > 0 && log.escaped === 0,
      `it saw ${log.seen} messages of the agents, and ${log.recorded} are recorded; ${log.escaped} denied ones got through`,
    );
  } else if (!database.own) {
    check("PostgreSQL's own log", true, "left out: set SALLYPORT_POSTGRES_LOG to compare with it");
  }
}

function tellEnd(stage: Stage, summary: Summary, deviations: readonly string[], options: Options): void {
  const { story, config, directory } = stage;
  story.line("");
  if (deviations.length > 0) {
    story.line(`${deviations.length} things went otherwise than they must:`);
    deviations.forEach((deviation) => story.line(`  ${deviation}`));
    if (options.keep) {
      story.line(`The gateway runs until Ctrl-C; everything of it is in ${directory}`);
    }
    return;
  }
  story.line(`Everything went as it must, in ${summary.seconds.toFixed(1)} s.`);
  if (options.keep) {
    story.line(`
The gateway runs until Ctrl-C; everything of it is in ${directory}
  sallyport grant add -c ${config} --principal support-copilot --resource billing \\
    --task "look around" --table public.customers:select:all --for 1h
  sallyport session ls -c ${config}
  sallyport ledger status -c ${config}`);
    return;
  }
  story.line(`
Next:
  npm run demo -- --keep        the same, and the gateway stays for you to try
  npm run sallyport -- init     a configuration for your own database
  npm run sallyport -- up       run the gateway`);
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) {
    return String(error);
  }
  const next = "nextStep" in error && typeof error.nextStep === "string" ? `\n  ${error.nextStep}` : "";
  const cause = error.cause instanceof Error ? `\n  ${error.cause.message}` : "";
  return `${error.message}${cause}${next}`;
}
