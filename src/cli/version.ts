import { readFileSync } from "node:fs";

/** The version in `package.json`, read as text: parsing modules for it would cost more than the rest of `--version`. */
export function programVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return /"version": "([^"]+)"/.exec(text)?.[1] ?? "unknown";
}
