import { createLog } from "#telemetry.ts";
import { configFile } from "./context.ts";
import { exitCodes, usageError } from "./exit-codes.ts";
import { type CliIo, type CommonOptions, type Output, clean } from "./output.ts";
import { describeResourceState } from "./resource-findings.ts";

const logLevels = ["debug", "info", "warn", "error", "silent"] as const;
const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const satisfies readonly NodeJS.Signals[];

/**
 * `sallyport up`: runs the node until a signal. `{ready: true, status: StatusView}` once it listens.
 * A first signal stops it in order; a second one ends the process at once, and the next start recovers.
 */
export async function up(
  options: { readonly log: string } & CommonOptions,
  io: CliIo,
  output: Output,
): Promise<number> {
  const level = logLevels.find((one) => one === options.log);
  if (level === undefined) {
    throw usageError(`${options.log} is not a level`, `use ${logLevels.join(", ")}`);
  }
  const { loadConfig } = await import("#config.ts");
  const config = loadConfig(configFile(options, io), { environment: io.environment, nowMs: Date.now() });
  const stopping = Promise.withResolvers<NodeJS.Signals>();
  const listeners = stopSignals.map((signal) => {
    let count = 0;
    const listener = (): void => {
      count += 1;
      stopping.resolve(signal);
      if (count > 1) {
        process.exit(exitCodes.interrupted);
      }
    };
    process.on(signal, listener);
    return { signal, listener };
  });
  try {
    const { startNode } = await import("#main.ts");
    const node = await startNode(config, { log: createLog({ level }), onStep: (step) => output.progress(`  ${step}`) });
    const status = await node.status();
    output.result({ ready: true, status }, [
      `sallyport ${status.version} · node ${config.node.name}`,
      `  postgres  ${status.postgres.host}:${status.postgres.port}`,
      `  control   ${status.control.host}:${status.control.port}`,
      `  ledger    ${status.ledger.size} entries · ${status.ledger.directory}`,
      `  key       ${status.ledger.verifierKey}`,
      ...status.resources.map(
        (one) =>
          `  resource  ${clean(one.name)} · ${describeResourceState(one)}${one.state === "ready" && one.findings.length > 0 ? ", see sallyport doctor" : ""}`,
      ),
      `  grants    ${status.activeGrants} active`,
    ]);
    const ended = await Promise.race([node.ended.then(() => null), stopping.promise]);
    if (ended === null) {
      return exitCodes.ok;
    }
    output.progress(`${ended}: stopping; once more ends it at once`);
    await node.stop();
    return ended === "SIGINT" ? exitCodes.interrupted : exitCodes.ok;
  } finally {
    for (const { signal, listener } of listeners) {
      process.off(signal, listener);
    }
  }
}
