/** Reads the imports of a TypeScript file, of every form, without a parser: static, re-export, side effect, dynamic, type. */

export interface Import {
  readonly specifier: string;
  readonly form: "static" | "dynamic";
  /** Gone at run time: `import type`, `export type`, or every name marked `type`. */
  readonly typeOnly: boolean;
  /** The names taken, before any `as`; `*` for all of them. */
  readonly names: readonly string[];
}

export interface ImportReading {
  readonly imports: readonly Import[];
  /** What looks like an import but could not be read; a reader that skips those proves nothing. */
  readonly unread: readonly string[];
}

const clause = String.raw`(?<type>type\s+)?(?<names>(?:[\w$]+\s*,\s*)?(?:\{[^}]*\}|\*(?:\s*as\s+[\w$]+)?)|[\w$]+)`;
const staticImport = new RegExp(String.raw`\b(?:import|export)\s*${clause}\s*from\s*["'](?<specifier>[^"']+)["']`, "g");
const sideEffectImport = /\bimport\s*["'](?<specifier>[^"']+)["']/g;
const dynamicImport = /\bimport\s*\((?<argument>[^)]*)\)/g;
const literal = /^\s*(?:"(?<double>[^"]+)"|'(?<single>[^']+)')\s*,?\s*$/;
const looksStatic = /^(?:import|export|\})[^\n]*\bfrom\s*["'][^"']+["']/gm;
const requireCall = /\brequire\s*\(/g;

/** Finds every import in `text`. Comments are read as well: an import in one is worth a look. */
export function readImports(text: string): ImportReading {
  const imports: Import[] = [];
  const unread: string[] = [];
  const readUntil = new Set<number>();
  for (const match of text.matchAll(staticImport)) {
    const { type, names = "", specifier = "" } = match.groups ?? {};
    const taken = readNames(names);
    const typeOnly = type !== undefined || (taken.length > 0 && taken.every((name) => name.startsWith("type ")));
    imports.push({ specifier, form: "static", typeOnly, names: taken.map((name) => name.replace(/^type /, "")) });
    readUntil.add(match.index + match[0].length);
  }
  for (const match of text.matchAll(looksStatic)) {
    if (!readUntil.has(match.index + match[0].length)) {
      unread.push(match[0]);
    }
  }
  for (const match of text.matchAll(sideEffectImport)) {
    imports.push({ specifier: match.groups?.["specifier"] ?? "", form: "static", typeOnly: false, names: [] });
  }
  for (const match of text.matchAll(dynamicImport)) {
    const { double, single } = literal.exec(match.groups?.["argument"] ?? "")?.groups ?? {};
    const specifier = double ?? single;
    if (specifier === undefined) {
      unread.push(match[0]);
    } else {
      imports.push({ specifier, form: "dynamic", typeOnly: false, names: ["*"] });
    }
  }
  for (const match of text.matchAll(requireCall)) {
    unread.push(match[0]);
  }
  return { imports, unread };
}

function readNames(names: string): readonly string[] {
  if (!names.includes("{")) {
    return names.includes("*") ? ["*"] : ["default"];
  }
  const named = names.slice(names.indexOf("{") + 1, names.indexOf("}"));
  return named
    .split(",")
    .map((name) => name.trim().replace(/\s+as\s+[\w$]+$/, ""))
    .filter((name) => name !== "");
}
