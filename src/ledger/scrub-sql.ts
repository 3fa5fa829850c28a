/**
 * Credentials in SQL: literals that are given to something with a secret name, wherever PostgreSQL's grammar puts them.
 * It works on tokens, not on a parse: what is refused for its syntax is recorded too. Pure, one pass.
 */
import { isSecretName } from "./scrub-names.ts";
import { spanOf } from "./scrub-spans.ts";
import type { Span } from "./scrub-spans.ts";
import { sqlTokens } from "./scrub-sql-tokens.ts";
import type { SqlToken } from "./scrub-sql-tokens.ts";

/** What a text is, taken as SQL. */
export interface SqlFindings {
  readonly spans: readonly Span[];
  /** Whether it begins as a statement does. */
  readonly isStatement: boolean;
  /** Literals and comments in which nothing was found yet: texts of their own. */
  readonly inner: readonly SqlToken[];
}

const statementWords = new Set(
  (
    "abort alter analyze begin call checkpoint close cluster comment commit copy create deallocate declare delete discard do " +
    "drop end execute explain fetch grant import insert listen load lock merge move notify prepare reassign refresh reindex " +
    "release reset revoke rollback savepoint security select set show start table truncate unlisten update vacuum values with"
  ).split(" "),
);
/** What may follow PASSWORD in a role's options without being a password. */
const roleWords = new Set(
  (
    "null valid superuser nosuperuser createdb nocreatedb createrole nocreaterole inherit noinherit login nologin replication " +
    "noreplication bypassrls nobypassrls connection in role user admin sysid encrypted unencrypted password with set reset " +
    "rename to expire using"
  ).split(" "),
);
/** Words between a name and what it is compared with or set to. */
const connectors = new Set(["to", "is", "not", "distinct", "from", "like", "ilike", "similar", "in", "collate"]);
/** Functions whose arguments are names and values in turn. */
const pairFunctions = new Set(["json_build_object", "jsonb_build_object", "set_config", "hstore"]);
const assigning = new Set(["=", "==", ":=", "=>", "<>", "!=", "~", "~~"]);
const barePassword = /[^\s;),]+/y;

/** What the next token is to be taken for. */
type Expected =
  | { readonly kind: "nothing" }
  /** A secret name was read. */
  | { readonly kind: "name"; readonly isBareToo: boolean; readonly isIn: boolean }
  /** The first of a pair of arguments was a secret name. */
  | { readonly kind: "pair" }
  | { readonly kind: "value"; readonly isBareToo: boolean }
  /** Something that is not a literal stands there; if it is a function, its arguments make the value. */
  | { readonly kind: "call" }
  /** In parentheses or brackets that make the value. */
  | { readonly kind: "list"; readonly depth: number }
  /** A literal was found, and another right after it continues it. */
  | { readonly kind: "more" };

const nothing: Expected = { kind: "nothing" };

/** INSERT: the places of secret columns, and where in a row the search is. */
interface InsertState {
  phase: "table" | "columns" | "between" | "values";
  readonly depth: number;
  readonly secret: Set<number>;
  column: number;
}

/** Searches a text for credentials, as SQL. */
export function searchSql(text: string): SqlFindings {
  const search = new SqlSearch(text);
  for (const token of sqlTokens(text)) {
    search.take(token);
  }
  return search.findings;
}

class SqlSearch {
  readonly #text: string;
  readonly #spans: Span[] = [];
  readonly #inner: SqlToken[] = [];
  /** The first two words of the statement. */
  #words: string[] = [];
  #firstWord: string | null = null;
  #expected: Expected = nothing;
  #isCast = false;
  #depth = 0;
  /** For each open parenthesis, the word before it. */
  readonly #calls: string[] = [];
  #lastWord = "";
  #lastOperator = "";
  /** A literal with an `=` after it: its name may follow. */
  #reversed: SqlToken | null = null;
  #isAssigned = false;
  /** IDENTIFIED was the last word: another dialect's PASSWORD, when BY follows. */
  #isIdentified = false;
  #insert: InsertState | null = null;

  constructor(text: string) {
    this.#text = text;
  }

  get findings(): SqlFindings {
    const isStatement = this.#firstWord !== null && statementWords.has(this.#firstWord);
    return { spans: this.#spans, isStatement, inner: this.#inner };
  }

  take(token: SqlToken): void {
    switch (token.kind) {
      case "comment":
        this.#inner.push(token);
        return;
      case "literal":
        this.#literal(token);
        break;
      case "number":
        if (this.#expected.kind === "value" || this.#isSecretColumn()) {
          this.#add(token.start, token.end);
        }
        this.#settle(nothing);
        this.#reversed = null;
        break;
      case "parameter":
        this.#settle(nothing);
        this.#reversed = null;
        break;
      case "word":
      case "quoted-word":
        this.#word(token);
        break;
      case "operator":
        this.#operator(this.#text.slice(token.start, token.end));
        break;
      default:
        token.kind satisfies never;
    }
    if (token.kind !== "word" && token.kind !== "quoted-word") {
      this.#lastWord = "";
    }
    if (token.kind !== "operator") {
      this.#lastOperator = "";
    }
  }

  #add(start: number, end: number): void {
    const span = spanOf(this.#text, start, end);
    if (span !== null) {
      this.#spans.push(span);
    }
  }

  /** What is expected next, unless a list is open, which goes on to its end. */
  #settle(expected: Expected): void {
    if (this.#expected.kind !== "list") {
      this.#expected = expected;
    }
  }

  #literal(token: SqlToken): void {
    const { kind } = this.#expected;
    if (token.start === token.end && kind === "name") {
      // An empty one, or two quotes where one was meant: then the password stands after them.
      return;
    }
    if (kind === "name" || kind === "value" || kind === "list" || kind === "more" || this.#isSecretColumn()) {
      this.#add(token.start, token.end);
      this.#settle({ kind: "more" });
      this.#reversed = null;
      return;
    }
    this.#inner.push(token);
    this.#reversed = token;
    this.#expected = nothing;
    if (token.end - token.start <= 128) {
      const content = this.#text.slice(token.start, token.end);
      const isKey = this.#lastOperator === "->" || this.#lastOperator === "->>";
      const isArgument = pairFunctions.has(this.#calls.at(-1) ?? "");
      if ((isKey || isArgument) && isSecretName(content.slice(content.lastIndexOf(".") + 1))) {
        this.#expected = isKey ? { kind: "name", isBareToo: false, isIn: false } : { kind: "pair" };
      }
    }
  }

  #word(token: SqlToken): void {
    const word = this.#text.slice(token.start, Math.min(token.end, token.start + 128)).toLowerCase();
    this.#lastWord = word;
    if (token.kind === "word") {
      this.#firstWord ??= word;
      if (this.#words.length < 2) {
        this.#words.push(word);
      }
    }
    this.#insertWord(word);
    if (this.#isCast) {
      this.#isCast = false;
      return;
    }
    const expected = this.#expected;
    if (expected.kind === "list") {
      // What a query in there compares is its own affair.
      this.#expected = word === "select" ? nothing : expected;
    } else if (expected.kind === "name" && connectors.has(word) && !(word === "is" && this.#words[0] === "comment")) {
      this.#expected = word === "to" ? this.#value() : { ...expected, isBareToo: false, isIn: word === "in" };
      return;
    } else if ((expected.kind === "name" || expected.kind === "value") && expected.isBareToo && !roleWords.has(word)) {
      this.#bare(token);
      this.#expected = nothing;
      return;
    } else {
      this.#expected = expected.kind === "value" ? { kind: "call" } : nothing;
    }
    this.#name(token, word);
  }

  /** A word that may be a secret's name. */
  #name(token: SqlToken, word: string): void {
    if (word === "by" && this.#isIdentified) {
      this.#settle({ kind: "value", isBareToo: true });
    }
    this.#isIdentified = word === "identified";
    // In SQL an unquoted AUTHORIZATION is followed by a role's name.
    if (!isSecretName(word) || (token.kind === "word" && word === "authorization")) {
      return;
    }
    if (this.#reversed !== null && this.#isAssigned) {
      this.#add(this.#reversed.start, this.#reversed.end);
      this.#reversed = null;
    }
    const [first, second = ""] = this.#words;
    const isRole = (first === "create" || first === "alter") && ["role", "user", "group"].includes(second);
    this.#settle({ kind: "name", isBareToo: isRole && word === "password", isIn: false });
  }

  /** Where a setting is set, a bare word is its value; elsewhere it is a column. */
  #value(): Expected {
    const [first, second = ""] = this.#words;
    const isSetting = first === "set" || (first === "alter" && ["role", "user", "database", "system"].includes(second));
    return { kind: "value", isBareToo: isSetting };
  }

  #bare(token: SqlToken): void {
    if (token.kind === "quoted-word") {
      this.#add(token.start, token.end);
      return;
    }
    barePassword.lastIndex = token.start;
    const found = barePassword.exec(this.#text);
    this.#add(token.start, token.start + (found?.[0].length ?? 0));
  }

  #operator(operator: string): void {
    this.#lastOperator = operator;
    const expected = this.#expected;
    switch (operator) {
      case "::":
        this.#isCast = true;
        return;
      case "(":
      case "[":
        this.#open(expected);
        return;
      case ")":
      case "]":
        this.#close(expected);
        return;
      case ",":
        this.#comma(expected);
        return;
      case ".":
        this.#settle(expected.kind === "call" ? expected : nothing);
        return;
      case ";":
        this.#words = [];
        this.#insert = null;
        this.#expected = nothing;
        this.#reversed = null;
        return;
      default:
        break;
    }
    this.#isAssigned = operator === "=" && this.#reversed !== null;
    if (!this.#isAssigned) {
      this.#reversed = null;
    }
    if (expected.kind === "name" && assigning.has(operator)) {
      this.#expected = this.#value();
    } else if (expected.kind === "more" && operator === "||") {
      this.#expected = { kind: "value", isBareToo: false };
    } else if (!(expected.kind === "value" && (operator === "-" || operator === "+"))) {
      this.#settle(nothing);
    }
  }

  #open(expected: Expected): void {
    this.#depth += 1;
    this.#calls.push(this.#lastWord);
    const isValue =
      expected.kind === "value" || expected.kind === "call" || (expected.kind === "name" && expected.isIn);
    this.#settle(isValue ? { kind: "list", depth: this.#depth } : nothing);
    const insert = this.#insert;
    if (insert !== null && this.#depth === insert.depth + 1) {
      insert.column = 0;
      insert.phase = insert.phase === "table" ? "columns" : insert.phase;
    }
  }

  #close(expected: Expected): void {
    if (expected.kind === "name") {
      // `(token) = …` and `lower(token) = …` compare the same as without.
      this.#expected = { ...expected, isBareToo: false };
    } else if (expected.kind !== "list" || this.#depth <= expected.depth) {
      this.#expected = nothing;
    }
    this.#depth = Math.max(0, this.#depth - 1);
    this.#calls.pop();
    const insert = this.#insert;
    if (insert !== null && insert.phase === "columns" && this.#depth === insert.depth) {
      this.#insert = insert.secret.size === 0 ? null : { ...insert, phase: "between" };
    }
  }

  #comma(expected: Expected): void {
    this.#settle(expected.kind === "pair" ? { kind: "value", isBareToo: false } : nothing);
    this.#reversed = null;
    if (this.#insert !== null && this.#depth === this.#insert.depth + 1) {
      this.#insert.column += 1;
    }
  }

  #insertWord(word: string): void {
    const insert = this.#insert;
    if (word === "insert") {
      this.#insert = { phase: "table", depth: this.#depth, secret: new Set(), column: 0 };
    } else if (insert?.phase === "columns") {
      if (this.#depth === insert.depth + 1 && isSecretName(word)) {
        insert.secret.add(insert.column);
      }
    } else if (insert !== null && this.#depth === insert.depth && insert.phase !== "table") {
      // Anything but rows of values, before or after them, is no longer a row.
      const isValues = insert.phase === "between" && ["values", "overriding", "system", "user", "value"].includes(word);
      this.#insert = isValues ? { ...insert, phase: word === "values" ? "values" : "between" } : null;
    }
  }

  /** Whether the search stands in a row of values, at the place of a secret column. */
  #isSecretColumn(): boolean {
    const insert = this.#insert;
    return insert?.phase === "values" && this.#depth > insert.depth && insert.secret.has(insert.column);
  }
}
