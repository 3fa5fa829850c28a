/** What the verbs share: which configuration, which gateway, and asking a person. */
import { join } from "node:path";
import type { ControlClient } from "#api/client.ts";
import type { CliIo, CommonOptions } from "./output.ts";

/** Where a verb looks when `--config` does not say. */
export const configDefault = "sallyport.yaml";

/** `--config`, SALLYPORT_CONFIG, or `sallyport.yaml` here. */
export function configFile(options: CommonOptions, io: CliIo): string {
  return options.config ?? (io.environment["SALLYPORT_CONFIG"] || configDefault);
}

/**
 * Runs `work` with a client of the gateway that the configuration names.
 * @throws SallyportError `config.missing`, `config.invalid`, `secret.…`, `gateway.not-running` and what the gateway answers.
 */
export async function withGateway<T>(
  options: CommonOptions,
  io: CliIo,
  work: (client: ControlClient) => Promise<T>,
): Promise<T> {
  const [{ loadControlPlace }, { loadControlToken }, { createControlClient }] = await Promise.all([
    import("#config-place.ts"),
    import("#config-secrets.ts"),
    import("#api/client.ts"),
  ]);
  const place = loadControlPlace(configFile(options, io));
  const token = await loadControlToken(place.tokenFile);
  await using client = createControlClient({ ...place.address, token: token.reveal() });
  return await work(client);
}

/** Where the configuration's node keeps its ledger. */
export async function ledgerDirectory(options: CommonOptions, io: CliIo): Promise<string> {
  const { loadControlPlace } = await import("#config-place.ts");
  return join(loadControlPlace(configFile(options, io)).directory, "ledger");
}

/** True when a question may be asked: a person is at both ends, and `--no-input` was not given. */
export function mayAsk(options: CommonOptions, io: CliIo): boolean {
  return options.input !== false && options.json !== true && io.stdin.isTTY === true && io.stderr.isTTY === true;
}

/** Asks a question on standard error; anything but `y` or `yes` is a no. */
export async function askYesNo(question: string, io: CliIo): Promise<boolean> {
  const { createInterface } = await import("node:readline/promises");
  const lines = createInterface({ input: io.stdin, output: io.stderr });
  try {
    return /^y(es)?$/i.test((await lines.question(`${question} [y/N] `)).trim());
  } finally {
    lines.close();
  }
}
