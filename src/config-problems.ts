/** Says what is wrong with a configuration the way its author needs it: file, line, column, and the fix. Pure. */
import { LineCounter, type Node, isMap, isNode, isScalar, isSeq, parseDocument, visit } from "yaml";
import type { z } from "zod";
import { SallyportError } from "#domain/errors.ts";
import { suggestWord } from "./config-names.ts";

/** One thing wrong with a configuration. Lines and columns start at 1. */
export interface ConfigProblem {
  readonly line: number;
  readonly column: number;
  /** Where it is in the document, such as `grants[0].expires`; empty for the document itself. */
  readonly path: string;
  readonly message: string;
  readonly fix: string;
}

/** Where a value is: map keys and list positions from the top. */
export type ConfigPath = readonly (string | number)[];

/** A configuration that is refused, with everything that is wrong with it. */
export class ConfigError extends SallyportError {
  readonly file: string;
  /** In the order of the file; at least one. */
  readonly problems: readonly ConfigProblem[];

  constructor(file: string, problems: readonly ConfigProblem[]) {
    const sorted = problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
    const shown = sorted.slice(0, problemsShownMax).map((problem) => describeProblem(file, problem));
    const rest = sorted.length - shown.length;
    super("config.invalid", "client", [...shown, ...(rest > 0 ? [`… and ${rest} more`] : [])].join("\n"), {
      nextStep: sorted[0]?.fix ?? "correct the configuration",
    });
    this.name = "ConfigError";
    this.file = file;
    this.problems = sorted;
  }
}

/** More are the same mistake over and over. */
const problemsShownMax = 20;
/** A configuration for thousands of grants is under this. */
export const configBytesMax = 1024 * 1024;

function describeProblem(file: string, problem: ConfigProblem): string {
  const where = problem.path === "" ? "" : `${problem.path}: `;
  return `${file}:${problem.line}:${problem.column}: ${where}${problem.message}\n  fix: ${problem.fix}`;
}

/** A parsed document that can say where each of its values stands. */
export interface ConfigDocument {
  readonly value: unknown;
  /** The problem at a value (or at its key), or at the nearest thing around it that exists. */
  readonly problemAt: (path: ConfigPath, message: string, fix: string, at?: "value" | "key") => ConfigProblem;
}

/**
 * Reads YAML 1.2 text: one document, no aliases, no duplicate keys.
 * @throws ConfigError naming each line that is not well formed.
 */
export function readConfigDocument(text: string, file: string): ConfigDocument {
  const lineCounter = new LineCounter();
  if (Buffer.byteLength(text) > configBytesMax) {
    const message = `the file is larger than ${configBytesMax / 1024} KiB`;
    throw new ConfigError(file, [{ line: 1, column: 1, path: "", message, fix: "split it over several nodes" }]);
  }
  const document = parseDocument(text, { lineCounter, uniqueKeys: true, strict: true, prettyErrors: false });
  const at = (offset: number): { readonly line: number; readonly column: number } => {
    const place = lineCounter.linePos(offset);
    return { line: Math.max(1, place.line), column: Math.max(1, place.col) };
  };
  const problems: ConfigProblem[] = [...document.errors, ...document.warnings].map((error) => ({
    ...at(error.pos[0]),
    path: "",
    ...explainYaml(error.code, error.message),
  }));
  const refuse = (node: Node, message: string, fix: string): void => {
    problems.push({ ...at(node.range?.[0] ?? 0), path: "", message, fix });
  };
  visit(document, {
    Alias: (_key, node) => refuse(node, `the alias *${node.source} is not supported`, "write the value out"),
    Pair: (_key, pair) => {
      if (isNode(pair.key) && (!isScalar(pair.key) || typeof pair.key.value !== "string")) {
        refuse(pair.key, "a key must be a text", "put the key in quotes");
      }
    },
  });
  if (problems.length > 0) {
    throw new ConfigError(file, problems);
  }
  const contents = document.contents;
  return {
    value: document.toJS(),
    problemAt: (path, message, fix, which = "value") => ({
      ...at(offsetOf(contents, path, which)),
      path: formatPath(path),
      message,
      fix,
    }),
  };
}

function explainYaml(code: string, message: string): { readonly message: string; readonly fix: string } {
  switch (code) {
    case "DUPLICATE_KEY":
      return { message: "this key is there twice", fix: "keep one of the two" };
    case "MULTIPLE_DOCS":
      return { message: "the file holds more than one document", fix: "remove the line `---`" };
    case "TAB_AS_INDENT":
      return { message: "a tab is used to indent", fix: "indent with spaces" };
    case "BAD_INDENT":
      if (message.startsWith("Flow ")) {
        return { message: "a bracket that was opened above is still open", fix: "close it with } or ]" };
      }
      return { message: "the indentation does not fit", fix: "indent keys of one block by the same number of spaces" };
    case "TAG_RESOLVE_FAILED":
      return { message: "this tag is not supported", fix: "remove the word that starts with `!`" };
    default:
      return {
        message: `not valid YAML: ${message}`,
        fix: "quote texts that hold `: `, `#`, `{`, `[`, `*`, `&` or `@`",
      };
  }
}

/** Walks as far as the path exists; what is missing is reported at what should hold it. */
function offsetOf(contents: unknown, path: ConfigPath, which: "value" | "key"): number {
  let node: unknown = contents;
  let offset = startOf(contents) ?? 0;
  for (const [depth, segment] of path.entries()) {
    if (isSeq(node) && typeof segment === "number") {
      node = node.items[segment];
      offset = startOf(node) ?? offset;
    } else if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && item.key.value === segment);
      if (pair === undefined) {
        return offset;
      }
      node = pair.value;
      const keyOffset = startOf(pair.key) ?? offset;
      const wantsKey = which === "key" && depth === path.length - 1;
      offset = wantsKey || (isScalar(node) && node.value === null) ? keyOffset : (startOf(node) ?? keyOffset);
    } else {
      return offset;
    }
  }
  return offset;
}

function startOf(node: unknown): number | null {
  return isNode(node) && node.range ? node.range[0] : null;
}

function formatPath(path: ConfigPath): string {
  return path.reduce<string>((text, segment) => {
    if (typeof segment === "number") {
      return `${text}[${segment}]`;
    }
    return text === "" ? segment : `${text}.${segment}`;
  }, "");
}

/** Turns what zod found into problems; `schema` is the JSON Schema of the same shape, for suggestions. */
export function problemsOfIssues(
  document: ConfigDocument,
  issues: readonly z.core.$ZodIssue[],
  schema: unknown,
): readonly ConfigProblem[] {
  return issues.flatMap((issue) => {
    const path = issue.path.map((segment) => (typeof segment === "number" ? segment : String(segment)));
    if (issue.code === "unrecognized_keys") {
      const known = knownKeys(schema, path);
      return issue.keys.map((key) =>
        document.problemAt([...path, key], `unknown key \`${key}\``, suggestKey(key, known), "key"),
      );
    }
    const { message, fix } = explainIssue(issue, valueAt(document.value, path), String(path.at(-1) ?? ""));
    return [document.problemAt(path, message, fix)];
  });
}

/** What MASKING calls keyed operators: they need a key store and come with the masking work. */
const keyedOperators = new Set(["token", "pseudonym", "ff1", "encrypt"]);

function explainIssue(
  issue: z.core.$ZodIssue,
  value: unknown,
  key: string,
): { readonly message: string; readonly fix: string } {
  if (value === undefined) {
    return { message: `\`${key}\` is missing`, fix: `add \`${key}: …\` here` };
  }
  if (value === null && issue.code === "invalid_type") {
    return { message: `\`${key}\` has no value`, fix: `give it a value, or remove \`${key}\`` };
  }
  switch (issue.code) {
    case "invalid_type":
      return explainType(issue.expected, value);
    case "invalid_value":
      return { message: `${show(value)} is not known here`, fix: `use ${issue.values.map(show).join(", ")}` };
    case "invalid_union": {
      if ("options" in issue && Array.isArray(issue.options)) {
        return explainOption(
          value,
          issue.options.filter((option) => typeof option === "string"),
        );
      }
      return key === "state"
        ? {
            message: "`state` is neither form that it has",
            fix: 'write `{ embedded: true }`, or `{ url: "${env:NAME}" }`',
          }
        : {
            message: `${show(value)} does not fit`,
            fix: "write `all`, or a list of at least one column: `[id, name]`",
          };
    }
    case "too_small":
      return {
        message: `${show(value)} is too ${sizeWord(issue.origin, "short", "small")}`,
        fix: `give at least ${issue.minimum}`,
      };
    case "too_big":
      return {
        message: `${show(value)} is too ${sizeWord(issue.origin, "long", "large")}`,
        fix: `give at most ${issue.maximum}`,
      };
    case "invalid_format":
      return { message: `${show(value)} does not fit`, fix: `write ${issue.message}` };
    default:
      return { message: issue.message, fix: "see docs/configuration.md" };
  }
}

function sizeWord(origin: string, ofLength: string, ofNumber: string): string {
  return origin === "string" || origin === "array" ? ofLength : ofNumber;
}

function explainOption(value: unknown, options: readonly string[]): { readonly message: string; readonly fix: string } {
  const list = `use one of ${options.join(", ")}`;
  if (typeof value === "string" && keyedOperators.has(value)) {
    return { message: `the operator ${value} needs a key and comes later`, fix: list };
  }
  const near = typeof value === "string" ? suggestWord(value, options) : null;
  return { message: `${show(value)} is not known here`, fix: near === null ? list : `did you mean ${near}? ${list}` };
}

function explainType(expected: string, value: unknown): { readonly message: string; readonly fix: string } {
  const names: Readonly<Record<string, string>> = {
    object: "a block of keys",
    record: "a block of keys",
    array: "a list",
    int: "a whole number",
  };
  const isPlain = typeof value === "number" || typeof value === "boolean";
  const fix =
    expected === "string" && isPlain
      ? `put it in quotes: "${String(value)}"`
      : `write ${names[expected] ?? `a ${expected}`}`;
  return { message: `${show(value)} is not ${names[expected] ?? `a ${expected}`}`, fix };
}

/** Short, and never a text long enough to be a secret. */
function show(value: unknown): string {
  if (typeof value === "string") {
    return value.length <= 40 ? `"${value}"` : "this text";
  }
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "this list" : "this block";
  }
  return String(value);
}

function suggestKey(key: string, known: readonly string[]): string {
  if (known.includes(key)) {
    return "remove it: it belongs to another form of this block";
  }
  const near = suggestWord(key, known);
  if (near !== null) {
    return `did you mean \`${near}\`?`;
  }
  return known.length === 0 ? "remove it" : `remove it; known here: ${known.join(", ")}`;
}

function valueAt(value: unknown, path: ConfigPath): unknown {
  let found = value;
  for (const segment of path) {
    if (typeof found !== "object" || found === null) {
      return undefined;
    }
    found = new Map<string, unknown>(Object.entries(found)).get(String(segment));
  }
  return found;
}

/** The keys that the JSON Schema knows at a path, over all alternatives. */
function knownKeys(schema: unknown, path: ConfigPath): readonly string[] {
  let here: readonly unknown[] = alternatives(schema);
  for (const segment of path) {
    const key = typeof segment === "number" ? "items" : "properties";
    here = here
      .map((one) => field(one, key))
      .map((one) => (typeof segment === "number" ? one : field(one, segment)))
      .flatMap(alternatives);
  }
  const keys = here.flatMap((one) => {
    const properties = field(one, "properties");
    return typeof properties === "object" && properties !== null ? Object.keys(properties) : [];
  });
  return [...new Set(keys)];
}

function alternatives(schema: unknown): readonly unknown[] {
  const either = field(schema, "anyOf") ?? field(schema, "oneOf");
  return Array.isArray(either) ? either.flatMap(alternatives) : [schema];
}

function field(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null
    ? new Map<string, unknown>(Object.entries(value)).get(key)
    : undefined;
}
