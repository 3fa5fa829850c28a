/** What became of the tiers of a CI run, from vitest's JSON reports. */

/**
 * Counts one tier. A file that failed before its first test counts as a failed test, and so does a run that failed, or left
 * no report, without a failed test to show for it: a failure must never read as "0 failed".
 *
 * @param {number | null} exitCode of the tier's run
 * @param {string | null} report vitest's JSON; null when there was none
 * @returns {{ passed: number, failed: number }}
 */
export function summarize(exitCode, report) {
  const { passed, failed } = report === null ? { passed: 0, failed: 0 } : count(JSON.parse(report));
  const silentFailure = failed === 0 && (exitCode !== 0 || passed === 0);
  return { passed, failed: silentFailure ? 1 : failed };
}

function count(report) {
  const brokenFiles = report.testResults.filter(
    ({ status, assertionResults }) => status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  );
  return { passed: report.numPassedTests, failed: report.numFailedTests + brokenFiles.length };
}
