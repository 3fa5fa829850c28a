/** Gives every property test the run's seed; `vitest.config.ts` says which. */
import { configureGlobal } from "fast-check";

/** For tests with random choices of their own. */
export const testSeed = Number(process.env["SALLYPORT_TEST_SEED"]);

configureGlobal({ seed: testSeed });
