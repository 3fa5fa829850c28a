/** The may-import table of DESIGN.md, and the check of a tree against it. */
import { posix } from "node:path";
import { type Import, readImports } from "./imports.ts";

interface ModuleRule {
  /** Modules, or single files of them, that a module may import. */
  readonly may: readonly string[];
  /** The same, for types only. */
  readonly mayTypes?: readonly string[];
  /** The same, for dynamic imports only. */
  readonly mayLazily?: readonly string[];
  /** Everything from outside the project that it may import; anything when not given. */
  readonly outside?: readonly string[];
}

/**
 * Who may import whom. A name ending in `.ts` is one file, and its row goes before its module's; any other is a whole module.
 */
export const mayImport: Readonly<Record<string, ModuleRule>> = {
  domain: { may: [], outside: [] },
  tlog: { may: [], outside: ["node:crypto"] },
  policy: { may: ["domain"] },
  sql: { may: ["domain"] },
  mask: { may: ["domain"], mayTypes: ["sql"] },
  identity: { may: ["domain"] },
  ledger: { may: ["domain", "tlog"] },
  evidence: { may: ["domain", "tlog", "ledger"] },
  "evidence/verify.ts": { may: ["tlog", "ledger/entry.ts"], outside: ["node:*"] },
  protocols: { may: ["domain", "sql", "identity/scram.ts", "ledger/recorded.ts", "mask/masker.ts"] },
  gateway: { may: ["domain", "identity", "policy", "ledger", "mask", "protocols/driver.ts"] },
  store: { may: ["domain"], mayTypes: ["identity/ports.ts", "gateway/ports.ts"] },
  api: { may: ["domain", "identity", "policy", "ledger", "evidence"] },
  // The relay of `sallyport run` is the command line's, so it reads JSON-RPC with the protocol's own codec.
  cli: {
    may: [
      "domain",
      "config",
      "telemetry",
      "api/contract.ts",
      "api/client.ts",
      "protocols/mcp/lines.ts",
      "protocols/mcp/message.ts",
      "evidence/verify.ts",
      "ledger/reader.ts",
    ],
    mayLazily: ["main.ts"],
  },
  config: { may: ["domain"] },
  telemetry: { may: ["domain"] },
  main: {
    may: "domain tlog policy sql mask identity ledger evidence protocols gateway store api cli config telemetry".split(
      " ",
    ),
  },
};

/** The tokens of the laws: which files may make them. */
const mints = [
  { word: /\bmint(?:Recorded|Enqueued)\b/, files: ["ledger/recorded.ts", "ledger/append.ts"] },
  { word: /\bnew\s+(?:Recorded|Enqueued)\b/, files: ["ledger/recorded.ts"] },
  { word: /\bnew\s+Masked\b/, files: ["mask/"] },
  { word: /\bas\s+(?:Recorded|Enqueued|Masked)\b/, files: [] },
] as const;

/**
 * Every breach of the table in a tree.
 * @param files text by path under `src`, such as `ledger/append.ts`.
 * @param filesMin fewer than that, and the reader has not seen the tree.
 */
export function findBreaches(files: ReadonlyMap<string, string>, filesMin: number): readonly string[] {
  const breaches: string[] = [];
  if (files.size < filesMin) {
    breaches.push(`only ${files.size} files were read, of at least ${filesMin}`);
  }
  for (const [path, text] of files) {
    const { imports, unread } = readImports(text);
    breaches.push(...unread.map((what) => `${path}: an import that cannot be read: ${what}`));
    for (const one of imports) {
      const breach = judge(path, one);
      if (breach !== null) {
        breaches.push(`${path}: ${breach}`);
      }
    }
    for (const mint of mints) {
      const found = mint.word.exec(text);
      if (found !== null && !mint.files.some((file) => path.startsWith(file))) {
        breaches.push(`${path}: ${found[0]}: not here`);
      }
    }
  }
  return breaches;
}

function judge(path: string, one: Import): string | null {
  const { specifier } = one;
  if (specifier.includes("../")) {
    return `${specifier}: \`../\` is banned, write #module/file.ts`;
  }
  const target = resolveTarget(path, specifier);
  const rule = ruleOf(path);
  if (rule === null) {
    return `is in no module of the table`;
  }
  if (target === null) {
    const banned = rule.outside !== undefined && !rule.outside.some((allowed) => matches(allowed, specifier));
    return banned ? `${specifier}: nothing from outside but ${rule.outside.join(", ") || "nothing"}` : null;
  }
  if (!target.endsWith(".ts")) {
    return `${specifier}: a file's name ends in .ts`;
  }
  if (specifier.startsWith("#") && moduleOf(target) === moduleOf(path) && moduleOf(path) !== "protocols") {
    return `${specifier}: within a module write ./file.ts`;
  }
  if (target === "ledger/recorded.ts" && one.names.includes("*")) {
    return `${specifier}: its mints must not come along, name what you need`;
  }
  return mayReach(path, target, one, rule) ? null : `${specifier}: the table does not allow it`;
}

function mayReach(path: string, target: string, one: Import, rule: ModuleRule): boolean {
  const sameModule =
    moduleOf(target) === moduleOf(path) &&
    (ruleKeyOf(path) === moduleOf(path) || ruleKeyOf(target) === ruleKeyOf(path));
  if (sameModule && !(moduleOf(path) === "protocols" && driverOf(path) !== null && isOtherDriver(path, target))) {
    return true;
  }
  const allowed = [
    ...rule.may,
    ...(one.typeOnly ? (rule.mayTypes ?? []) : []),
    ...(one.form === "dynamic" ? (rule.mayLazily ?? []) : []),
  ];
  return allowed.some((name) => name === target || name === moduleOf(target));
}

/** The file under `src` that a specifier names; null when it is not of this project. */
function resolveTarget(path: string, specifier: string): string | null {
  if (specifier.startsWith("#")) {
    return specifier.slice(1);
  }
  return specifier.startsWith(".") ? posix.join(posix.dirname(path), specifier) : null;
}

function ruleOf(path: string): ModuleRule | null {
  return mayImport[ruleKeyOf(path)] ?? null;
}

function ruleKeyOf(path: string): string {
  // The verifier is cut into several files; one row holds for them all.
  if (path.startsWith("evidence/verify")) {
    return "evidence/verify.ts";
  }
  return path in mayImport ? path : moduleOf(path);
}

/** The first folder; for a file that stands in `src`, its first word: `config-schema.ts` is part of `config`. */
export function moduleOf(path: string): string {
  return (path.split("/")[0] ?? path).replace(/(?:-[\w-]*)?\.ts$/, "");
}

/** The protocol that a file belongs to; null for the files that all protocols share. */
function driverOf(path: string): string | null {
  const parts = path.split("/");
  return parts[0] === "protocols" && parts.length > 2 ? (parts[1] ?? null) : null;
}

function isOtherDriver(path: string, target: string): boolean {
  return driverOf(target) !== null && driverOf(target) !== driverOf(path);
}

function matches(allowed: string, specifier: string): boolean {
  return allowed.endsWith("*") ? specifier.startsWith(allowed.slice(0, -1)) : allowed === specifier;
}
