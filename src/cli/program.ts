/** The verbs of the command line, their options and their help. What a verb does is loaded when it is called. */
import { Command, CommanderError } from "commander";
import type { SallyportError } from "#domain/errors.ts";
import { exitCodeOf, exitCodes, usageError } from "./exit-codes.ts";
import { type CliIo, type CommonOptions, Output } from "./output.ts";
import { programVersion } from "./version.ts";

/** A verb's work: its exit code, or what it throws. */
type Work<O> = (options: O & CommonOptions, io: CliIo, output: Output, operands: readonly string[]) => Promise<number>;

/**
 * Runs one command line and resolves with its exit code; it never rejects and never ends the process.
 * @param given the arguments after the program's name.
 */
export async function runCli(given: readonly string[], io: CliIo): Promise<number> {
  let exitCode: number = exitCodes.ok;
  const output = new Output(io, { json: beforeDashes(given).includes("--json") });
  const program = buildProgram(io, (code) => {
    exitCode = code;
  });
  try {
    if (given.length === 0) {
      program.outputHelp();
      return exitCodes.ok;
    }
    await program.parseAsync([...given], { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode !== 0 && error.message !== "(outputHelp)") {
        output.failure(fromCommander(error));
      }
      return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    }
    output.failure(error);
    if (io.environment["SALLYPORT_DEBUG"] && error instanceof Error) {
      io.stderr.write(`${error.stack ?? ""}\n`);
    }
    return exitCodeOf(error);
  }
}

/** Commander's message, its suggestion as the next step. */
function fromCommander(error: CommanderError): SallyportError {
  const [message = "", suggestion = ""] = error.message.replace(/^error: /, "").split("\n");
  return usageError(message, /^\((.+)\)$/.exec(suggestion)?.[1] ?? "sallyport help, or --help after the command");
}

function beforeDashes(given: readonly string[]): readonly string[] {
  const dashes = given.indexOf("--");
  return dashes === -1 ? given : given.slice(0, dashes);
}

function buildProgram(io: CliIo, setExitCode: (code: number) => void): Command {
  const program = new Command("sallyport");
  program
    .description("Identity-aware gateway between MCP servers and the data they reach.")
    .version(programVersion(), "-V, --version")
    .helpCommand(false)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void io.stderr.write(text),
      // Usage errors are reported in one place, in the form that was asked for.
      outputError: () => {},
    })
    .addHelpText(
      "after",
      "\nStart here:\n  sallyport init     write a configuration\n  sallyport up       run the gateway\n  sallyport demo     see it at work\n\nTopics: sallyport help exit-codes · environment · output",
    );
  const verb: VerbMaker = (parent, name, description, examples) => {
    const command = parent.command(name).description(description).allowExcessArguments(false);
    command
      .option("-c, --config <file>", "the configuration (or SALLYPORT_CONFIG)")
      .option("--json", "one JSON object on standard output");
    command.option("-q, --quiet", "no progress").option("--no-input", "never ask");
    command.addHelpText("after", `\nExamples:\n${examples.map((example) => `  ${example}`).join("\n")}`);
    return {
      command,
      does: <O extends object>(load: () => Promise<Work<O>>) => {
        command.action(async () => {
          const options = command.opts<O & CommonOptions>();
          const work = await load();
          setExitCode(await work(options, io, new Output(io, options), command.args));
        });
      },
    };
  };
  addNodeVerbs(program, verb, setExitCode);
  addRun(program, io, setExitCode);
  addGrantVerbs(program, verb);
  addLedgerVerbs(program, verb);
  addHelp(program, io);
  return program;
}

type VerbMaker = (
  parent: Command,
  name: string,
  description: string,
  examples: readonly string[],
) => {
  readonly command: Command;
  /** `O` is what the verb's own option lines, next to its name, make of a command line. */
  readonly does: <O extends object>(load: () => Promise<Work<O>>) => void;
};

function addNodeVerbs(program: Command, verb: VerbMaker, setExitCode: (code: number) => void): void {
  const init = verb(
    program,
    "init",
    "Write a configuration, the node's keys and its control token. Nothing is overwritten.",
    ["sallyport init", "sallyport init ~/gateway --name billing-gw"],
  );
  init.command
    .argument("[directory]", "where to write; here if not given")
    .option("--name <name>", "names the node in its ledger; the machine's name if not given")
    .option("--dry-run", "say what would be written, and write nothing");
  init.does(async () => (await import("./init.ts")).init);

  const up = verb(program, "up", "Run the gateway until it is told to stop.", [
    "sallyport up",
    "sallyport up -c /etc/sallyport/sallyport.yaml --json",
  ]);
  up.command.option("--log <level>", "diagnostics on standard error: debug, info, warn, error or silent", "warn");
  up.does(async () => (await import("./up.ts")).up);

  program
    .command("demo")
    .description("Start everything on this machine, drive two real MCP servers through it, verify the record.")
    .allowUnknownOption()
    .helpOption(false)
    .argument("[options...]", "--json, --keep; see `sallyport demo --help`")
    .action(async (given: readonly string[]) => {
      const { demo } = await import("./demo.ts");
      setExitCode(await demo(given));
    });

  const doctor = verb(
    program,
    "doctor",
    "Look for what is wrong: runtime, configuration, keys, ports, database rights, ledger, clocks.",
    ["sallyport doctor", "sallyport doctor --json"],
  );
  doctor.does(async () => (await import("./doctor.ts")).doctor);
}

function addRun(program: Command, io: CliIo, setExitCode: (code: number) => void): void {
  const collect = (value: string, values: readonly string[] = []): readonly string[] => [...values, value];
  const run = program
    .command("run")
    .description("Start a stdio MCP server with a credential of its own, and record what it is called for.")
    .requiredOption("--as <principal>", "who acts")
    .requiredOption("--task <task>", "title or ticket of the task; it names one active grant")
    .requiredOption("--resource <resource>", "the resource")
    .option(
      "--env <NAME=VALUE>",
      "for the server's environment, repeatable; placeholders may stand in the value",
      collect,
    )
    .option("--serialize-calls", "pass calls on one at a time, so that at most one call is in flight")
    .option("-c, --config <file>", "the configuration (or SALLYPORT_CONFIG)")
    .option("--json", "notes on standard error as JSON, one object a line")
    .argument("<server...>", "the server's program and its arguments, after `--`")
    .passThroughOptions()
    .addHelpText(
      "after",
      `\nExamples:\n  sallyport run --as support-copilot --task T-88 --resource billing -- \\\n    npx -y @modelcontextprotocol/server-postgres '{{DATABASE_URL}}'\n\nThe exit code is the server's own.`,
    );
  run.action(async (server: readonly string[]) => {
    const options = run.opts<{
      as: string;
      task: string;
      resource: string;
      env?: readonly string[];
      serializeCalls?: boolean;
      config?: string;
      json?: boolean;
    }>();
    const [{ runCommand }, { configFile }] = await Promise.all([import("./run.ts"), import("./context.ts")]);
    setExitCode(await runCommand({ ...options, config: configFile(options, io) }, server));
  });
}

function addGrantVerbs(program: Command, verb: VerbMaker): void {
  const grant = program
    .command("grant")
    .description("Grants: who may reach what, for which task, until when.")
    .helpCommand(false);
  const collect = (value: string, values: readonly string[]): readonly string[] => [...values, value];
  const add = verb(grant, "add", "Make a grant and a credential for it. The password is shown once.", [
    'sallyport grant add --principal support-copilot --resource billing --task "T-88 charged twice" \\',
    "    --table public.customers:select:id,name,email --table public.invoices:select --for 30m",
    "sallyport grant add --principal etl --resource billing --task nightly --table public.invoices:select,insert:all --for 8h --json",
  ]);
  add.command
    .requiredOption("--principal <name>", "who is granted it")
    .requiredOption("--resource <name>", "the resource")
    .requiredOption("--task <title>", "what it is for")
    .requiredOption(
      "--table <schema.table:verbs[:columns]>",
      "once for each table; columns are names or `all`, and all when not given",
      collect,
      [],
    )
    .requiredOption("--for <duration>", "how long: 45s, 30m, 8h, 7d; at most 30 days")
    .option("--ticket <ticket>", "the task's ticket")
    .option("--purpose <text>", "why, in a sentence")
    .option("--on-behalf-of <name>", "the human principal for whom the agent acts")
    .option("--dry-run", "check its syntax and its resource, say what would be made, and make nothing");
  add.does(async () => (await import("./grant.ts")).grantAdd);

  const list = verb(grant, "ls", "List grants.", ["sallyport grant ls", "sallyport grant ls --state ended --json"]);
  list.command
    .option("--state <state>", "pending, active or ended; what has not ended if not given")
    .option("--all", "ended ones too");
  list.does(async () => (await import("./grant.ts")).grantList);

  const revoke = verb(
    grant,
    "revoke",
    "End a grant now: its sessions end, and its rights at the resource are dropped.",
    ["sallyport grant revoke grt_9m2 --reason 'task done'", "sallyport grant revoke grt_9m2 --yes"],
  );
  revoke.command
    .argument("<id>", "the grant's id, or as much of its start as is unambiguous")
    .option("--reason <text>", "why; it is recorded", "revoked by the operator")
    .option("--yes", "do not ask; needed where nobody can be asked")
    .option("--dry-run", "say which grant it is, and leave it");
  revoke.does(async () => (await import("./grant.ts")).grantRevoke);

  const session = program.command("session").description("Sessions: who is inside now.").helpCommand(false);
  const sessions = verb(session, "ls", "List sessions.", ["sallyport session ls", "sallyport session ls --json"]);
  sessions.does(async () => (await import("./session.ts")).sessionList);
}

function addLedgerVerbs(program: Command, verb: VerbMaker): void {
  const ledger = program
    .command("ledger")
    .description("The ledger: what was recorded, and whether it still is.")
    .helpCommand(false);
  const status = verb(ledger, "status", "Say where the ledger stands; from its files when no gateway is running.", [
    "sallyport ledger status",
    "sallyport ledger status --json",
  ]);
  status.does(async () => (await import("./ledger.ts")).ledgerStatus);

  const verify = verb(
    ledger,
    "verify",
    "Verify a ledger's files with a key from outside. Needs no gateway, and trusts none.",
    [
      "sallyport ledger verify --key 'sallyport.local/billing-gw+1a2b3c4d+AR…'",
      "sallyport ledger verify --key-file auditor/billing-gw.vkey /mnt/copy/ledger --json",
    ],
  );
  verify.command
    .argument("[directory]", "the ledger's directory; the configuration's if not given")
    .option("--key <vkey>", "the verifier key (C2SP signed-note vkey), kept apart from the ledger")
    .option("--key-file <file>", "a file with the verifier key");
  verify.does(async () => (await import("./ledger.ts")).ledgerVerify);
}

function addHelp(program: Command, io: CliIo): void {
  program
    .command("help")
    .description("Help for a command or a topic: exit-codes, environment, output.")
    .argument("[words...]", "a command or a topic")
    .action(async (words: readonly string[]) => {
      const { helpTopic, helpTopicNames } = await import("./help-topics.ts");
      const topic = words.length === 1 ? helpTopic(words[0] ?? "") : null;
      if (topic !== null) {
        io.stdout.write(topic);
        return;
      }
      let command = program;
      for (const word of words) {
        const next = command.commands.find((one) => one.name() === word);
        if (next === undefined) {
          throw usageError(
            `there is no command or topic ${words.join(" ")}`,
            `sallyport help; topics: ${helpTopicNames.join(", ")}`,
          );
        }
        command = next;
      }
      command.outputHelp();
    });
}
