import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { LedgerView } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { LedgerVerification } from "#evidence/verify.ts";
import { ledgerDirectory, withGateway } from "./context.ts";
import { exitCodes, usageError } from "./exit-codes.ts";
import { type CliIo, type CommonOptions, type Output, clean } from "./output.ts";

/** `sallyport ledger status`: `{running, ledger: LedgerView}`; without a gateway, `verifierKey` may be null. */
export async function ledgerStatus(options: CommonOptions, io: CliIo, output: Output): Promise<number> {
  const live = await withGateway(options, io, (client) => client.status()).catch((error: unknown) => {
    if (error instanceof SallyportError && ["gateway.not-running", "secret.missing"].includes(error.code)) {
      return null;
    }
    throw error;
  });
  const ledger = live === null ? await readOffline(await ledgerDirectory(options, io)) : live.ledger;
  const running = live !== null;
  output.result({ running, ledger }, [
    `${ledger.origin} · ${running ? ledger.state : "no gateway is running; read from its files, nothing verified"}`,
    ...(ledger.failure === null ? [] : [`  failed      ${clean(ledger.failure)}`]),
    `  entries     ${ledger.size}, of them ${ledger.checkpointSize} under the newest checkpoint`,
    `  root        ${ledger.rootHex}`,
    `  key         ${ledger.verifierKey ?? "not here"}`,
    `  directory   ${ledger.directory}`,
  ]);
  return ledger.state === "failed" ? exitCodes.failure : exitCodes.ok;
}

async function readOffline(
  directory: string,
): Promise<Omit<LedgerView, "verifierKey"> & { readonly verifierKey: string | null }> {
  const { readLedger } = await import("#ledger/reader.ts");
  const { checkpoint, size } = await readLedger(directory);
  const verifierKey = await readFile(join(directory, "../keys/verifier.key"), "utf8").catch(() => null);
  return {
    origin: checkpoint.origin,
    directory,
    size,
    checkpointSize: checkpoint.size,
    rootHex: Buffer.from(checkpoint.root).toString("hex"),
    verifierKey: verifierKey?.trim() ?? null,
    state: "closed",
    failure: null,
  };
}

/** Options of `ledger verify`. */
export interface LedgerVerifyOptions {
  readonly key?: string;
  readonly keyFile?: string;
}

/** A verifier key is a line. */
const keyBytesMax = 4096;

/** `sallyport ledger verify`: `{verified, directory, …LedgerVerification}`. Exit code 6 when anything is not as it was signed. */
export async function ledgerVerify(
  options: LedgerVerifyOptions & CommonOptions,
  io: CliIo,
  output: Output,
  [given]: readonly string[],
): Promise<number> {
  const verifierKey = await readKey(options);
  const directory = given === undefined ? await ledgerDirectory(options, io) : resolve(given);
  const { verifyLedgerDirectory } = await import("#evidence/verify.ts");
  const found = await verifyLedgerDirectory({ directory, verifierKey }).catch((cause: unknown) => {
    if (cause instanceof RangeError) {
      throw usageError(clean(cause.message), "give the key as `sallyport up` printed it: name+id+key");
    }
    throw new SallyportError("ledger.unreadable", "gateway", `the ledger at ${directory} cannot be read`, {
      cause,
      nextStep: "check the directory's name, and that this account may read it",
    });
  });
  const verified = found.faultCount === 0;
  output.result({ verified, directory, ...found }, describeVerification(found, directory, output));
  return verified ? exitCodes.ok : exitCodes.verificationFailed;
}

async function readKey(options: LedgerVerifyOptions): Promise<string> {
  if ((options.key === undefined) === (options.keyFile === undefined)) {
    throw usageError(
      options.key === undefined
        ? "no key was given, and one found next to the ledger would prove nothing"
        : "two keys were given",
      "give --key <vkey> or --key-file <file>, from where you keep it apart from the ledger",
    );
  }
  if (options.keyFile === undefined) {
    return options.key ?? "";
  }
  const bytes = await readFile(options.keyFile).catch((cause: unknown) => {
    throw new SallyportError("usage", "client", `${options.keyFile} cannot be read`, {
      cause,
      nextStep: "check the file's name",
    });
  });
  if (bytes.length > keyBytesMax) {
    throw usageError(
      `${options.keyFile} is too large for a verifier key`,
      "name the file with the one line name+id+key",
    );
  }
  return bytes.toString("utf8");
}

const faultsShownMax = 20;

function verdictWords(verdict: LedgerVerification["integrity" | "completeness"]): string {
  return verdict === "unknown" ? "not checked" : verdict;
}

function describeVerification(found: LedgerVerification, directory: string, output: Output): readonly string[] {
  const isIntact = found.faultCount === 0;
  const verdict = isIntact ? output.tone("ok", "verified") : output.tone("failure", "NOT verified");
  const faults = found.faults.slice(0, faultsShownMax).map((fault) => {
    const entry = fault.entry === null ? "" : ` · entry ${fault.entry}`;
    const byte = fault.byte === null ? "" : ` · byte ${fault.byte}`;
    return `  ${fault.verdict}  ${clean(fault.file)}${entry}${byte}: ${clean(fault.words)}`;
  });
  const rest = found.faultCount - faults.length;
  const unsigned = found.unsigned.entries;
  const scope = unsigned > 0 ? `, for the ${found.checkpointSize} signed entries` : "";
  return [
    `${verdict} · ${clean(found.origin)} · ${directory}`,
    `  integrity     ${verdictWords(found.integrity)}${scope}`,
    `  completeness  ${verdictWords(found.completeness)}${scope}${found.completeness === "complete" ? " (as far as the ledger itself can tell: only a witness can tell that its end was cut off)" : ""}`,
    `  entries       ${found.size}, of them ${found.checkpointSize} signed${unsigned > 0 ? `, ${unsigned} not signed yet` : ""}`,
    `  root          ${found.rootHex}`,
    `  files         ${found.files.length} covered, ${found.filesNotCovered.length} that hold no evidence`,
    ...(found.mayHaveRun.length > 0 ? [`  may have run  ${found.mayHaveRun.length} commands without an outcome`] : []),
    ...(found.payloadsDestroyed > 0
      ? [`  erased        ${found.payloadsDestroyed} payloads whose key was destroyed`]
      : []),
    ...found.notices.map((notice) => `  note          ${notice}`),
    ...faults,
    ...(rest > 0 ? [`  … and ${rest} more`] : []),
  ];
}
