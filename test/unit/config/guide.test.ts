import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseConfig } from "#config.ts";

test("the example of the guide loads as it stands", () => {
  const guide = readFileSync(join(import.meta.dirname, "../../../docs/configuration.md"), "utf8");
  const example = /^```yaml\n(.*?)^```$/ms.exec(guide)?.[1] ?? "";
  const expires = /^ {4}expires: (\S+)/m.exec(example)?.[1] ?? "";
  const config = parseConfig(example, "/x/sallyport.yaml", {
    environment: { BILLING_DATABASE_URL: "postgresql://p@127.0.0.1/billing" },
    nowMs: Date.parse(expires) - 24 * 3600 * 1000,
  });
  expect(config).toMatchObject({ resources: [{ name: "billing" }], masks: [{}, {}], grants: [{}], policies: [] });
});
