import { mkdir, open } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { ensureNodeSecrets, nodePlaces } from "#config-secrets.ts";
import { exitCodes, usageError } from "./exit-codes.ts";
import { configTemplate } from "./init-template.ts";
import type { CliIo, CommonOptions, Output } from "./output.ts";

/** Options of `init`. */
export interface InitOptions {
  readonly name?: string;
  readonly dryRun?: boolean;
}

interface MadeFile {
  readonly path: string;
  readonly what: string;
  /** Left as it was, because it was there. */
  readonly kept: boolean;
}

const dayMs = 24 * 3600 * 1000;

/** `sallyport init`: `{directory, files: [{path, what, kept}], dryRun, next: string[]}`. Nothing that exists is changed. */
export async function init(
  options: InitOptions & CommonOptions,
  _io: CliIo,
  output: Output,
  [where = "."]: readonly string[],
): Promise<number> {
  const directory = resolve(where);
  const name = options.name ?? nodeName(hostname());
  if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(name)) {
    throw usageError(`--name ${name} cannot name a node`, "use 1 to 63 characters of a-z, 0-9, `.`, `_` and `-`");
  }
  const isDry = options.dryRun === true;
  const { configJsonSchema } = await import("#config-schema.ts");
  const nowMs = Date.now();
  const text = configTemplate({
    name,
    grantExpires: isoDay(nowMs + 7 * dayMs),
    principalExpires: isoDay(nowMs + 180 * dayMs),
  });
  const places = nodePlaces(join(directory, ".sallyport"));
  if (!isDry) {
    await mkdir(directory, { recursive: true });
  }
  const files: MadeFile[] = [
    await place(join(directory, "sallyport.yaml"), "the configuration", text, isDry),
    await place(
      join(directory, "sallyport.schema.json"),
      "what editors check the configuration with",
      configJsonSchema(),
      isDry,
    ),
  ];
  const made = isDry ? [] : await ensureNodeSecrets(places.directory);
  files.push(
    {
      path: places.rightsKey,
      what: "signs the rows that give rights (keep it secret, 0600)",
      kept: await isKept(places.rightsKey, made, isDry),
    },
    {
      path: places.controlToken,
      what: "lets the command line in (keep it secret, 0600)",
      kept: await isKept(places.controlToken, made, isDry),
    },
    await place(join(places.directory, ".gitignore"), "keeps keys and state out of git", "*\n", isDry),
  );
  const next = [where === "." ? "sallyport up" : `sallyport up -c ${join(where, "sallyport.yaml")}`];
  const word = (file: MadeFile): string => (file.kept ? "kept    " : isDry ? "would write" : "written ");
  output.result({ directory, files, dryRun: isDry, next }, [
    ...files.map((file) => `  ${word(file)}  ${file.path}  ${file.what}`),
    "",
    "The ledger's keys are made at the first start, next to these.",
    `Next:  edit sallyport.yaml, then ${next.join(", ")}`,
  ]);
  return exitCodes.ok;
}

async function place(path: string, what: string, text: string, isDry: boolean): Promise<MadeFile> {
  if (isDry) {
    return { path, what, kept: await exists(path) };
  }
  const file = await open(path, "wx", 0o644).catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") {
      return null;
    }
    throw error;
  });
  if (file === null) {
    return { path, what, kept: true };
  }
  try {
    await file.writeFile(text);
  } finally {
    await file.close();
  }
  return { path, what, kept: false };
}

async function isKept(path: string, made: readonly string[], isDry: boolean): Promise<boolean> {
  return isDry ? exists(path) : !made.includes(path);
}

async function exists(path: string): Promise<boolean> {
  const file = await open(path, "r").catch(() => null);
  await file?.close();
  return file !== null;
}

/** The machine's name as far as it can name a node. */
function nodeName(machine: string): string {
  const name = (machine.split(".")[0] ?? "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]/g, "")
    .replace(/^-+/, "")
    .slice(0, 63);
  return name === "" ? "gateway" : name;
}

function isoDay(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 10)}T00:00:00Z`;
}
