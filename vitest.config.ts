import { defineConfig } from "vitest/config";

/** One seed for every property test: fixed, or as SALLYPORT_TEST_SEED says, so that a failure can be had again. */
const seed = process.env["SALLYPORT_TEST_SEED"] ?? "20261122";

/** The tiers and their folders. `test` runs the first four, `test:full` and `test:soak` one each. */
const projects = [
  { name: "unit", include: ["test/unit/**/*.test.ts", "test/*.test.ts"], testTimeoutMs: 20_000 },
  { name: "e2e", include: ["test/e2e/**/*.test.ts"], testTimeoutMs: 60_000 },
  { name: "attack", include: ["test/attack/**/*.test.ts"], testTimeoutMs: 60_000 },
  { name: "crash", include: ["test/crash/**/*.test.ts"], testTimeoutMs: 300_000 },
  { name: "full", include: ["test/full/**/*.test.ts"], testTimeoutMs: 120_000 },
  { name: "soak", include: ["test/soak/**/*.test.ts"], testTimeoutMs: 6 * 60 * 60_000 },
] as const;

export default defineConfig({
  test: {
    projects: projects.map(({ name, include, testTimeoutMs }) => ({
      test: {
        name,
        include: [...include],
        env: { SALLYPORT_TEST_SEED: seed },
        setupFiles: ["test/support/seed.ts"],
        testTimeout: testTimeoutMs,
        hookTimeout: Math.max(testTimeoutMs, 60_000),
        pool: "forks" as const,
      },
    })),
    // A tier without a test is a mistake, not a success.
    passWithNoTests: false,
  },
});
