/** Text to statements, with the real grammar (`libpg-query`: PostgreSQL 18) and a bound on everything. */
import type { Node } from "libpg-query";
import { limits } from "#domain/limits.ts";
import { GrammarModule } from "./grammar-module.ts";
import { estimateNesting } from "./nesting.ts";
import { refuse } from "./refused.ts";

/** One statement of a text. Offsets are bytes of the text's UTF-8. */
export interface ParsedStatement {
  readonly node: Node;
  readonly start: number;
  readonly length: number;
}

/** Parses with the grammar loaded; see `parseStatements`. */
export type Parse = (text: string) => readonly ParsedStatement[];

/** What `estimateNesting` may say: it also counts what does not nest, and the parser's own stack holds several times as much. */
const nestingMax = limits.statementDepthMax * 3;

/** Loads the grammar (WebAssembly), once a process. */
export async function loadParser(): Promise<Parse> {
  const grammar = await GrammarModule.load();
  return parserOf(grammar);
}

/** The parser on a grammar that is loaded. */
export function parserOf(grammar: GrammarModule): Parse {
  return (text) => parseStatements(text, grammar);
}

/**
 * The statements of a text, none when it has only white space and comments.
 * @throws StatementRefused `statement.encoding`, `statement.too-large`, `statement.too-deep`, `statement.syntax`
 */
function parseStatements(text: string, grammar: GrammarModule): readonly ParsedStatement[] {
  checkText(text);
  // The parser's own wrapper refuses the empty text.
  if (text === "") {
    return [];
  }
  const raw = parseRaw(text, grammar);
  if (raw.length > limits.statementsPerQueryMax) {
    refuse(
      "statement.too-large",
      `the query has ${raw.length} statements and may have ${limits.statementsPerQueryMax}`,
      "Send fewer statements at a time.",
    );
  }
  const bytes = Buffer.byteLength(text, "utf8");
  return raw.map((statement) => {
    const start = statement.stmt_location ?? 0;
    const node = statement.stmt;
    if (node === undefined) {
      return refuse(
        "statement.unsupported",
        "the statement is of no known kind",
        "Send SELECT, INSERT, UPDATE or DELETE.",
      );
    }
    return { node, start, length: statement.stmt_len ?? bytes - start };
  });
}

function checkText(text: string): void {
  if (text.includes("\u0000") || !text.isWellFormed()) {
    refuse("statement.encoding", "the statement is not valid text", "Send UTF-8 without zero bytes.");
  }
  const bytes = Buffer.byteLength(text, "utf8");
  if (bytes > limits.statementBytesMax) {
    refuse(
      "statement.too-large",
      `the statement has ${bytes} bytes and may have ${limits.statementBytesMax}`,
      "Send values as parameters, or split the statement.",
    );
  }
  if (estimateNesting(text) > nestingMax) {
    refuseDepth();
  }
}

/** @throws StatementRefused `statement.too-deep` */
export function refuseDepth(): never {
  refuse(
    "statement.too-deep",
    `the statement nests deeper than ${limits.statementDepthMax} levels`,
    "Write long chains of operators as lists (IN, ANY) or split the statement.",
  );
}

type RawStatements = Extract<ReturnType<GrammarModule["parse"]>, { kind: "parsed" }>["statements"];

function parseRaw(text: string, grammar: GrammarModule): RawStatements {
  const outcome = grammar.parse(text);
  switch (outcome.kind) {
    case "parsed":
      return outcome.statements;
    case "error":
      return refuse(
        /^(memory exhausted|stack depth limit)/.test(outcome.message) ? "statement.too-deep" : "statement.syntax",
        `${outcome.message} at character ${outcome.position}`,
        "Correct the statement's syntax.",
      );
    case "broken":
      // The parser ran out of stack: what it could not read cannot pass.
      return refuseDepth();
    default:
      return outcome satisfies never;
  }
}
