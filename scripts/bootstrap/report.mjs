/** What the bootstrap tells: one line a step when it is done, nothing when there was nothing to do. Always on stderr. */

/** Where nothing can be taken back from the screen, a step that takes longer is announced as well. */
const patienceMs = 5_000;

/** A failure that the reader can do something about. */
export class BootstrapError extends Error {
  /**
   * @param {string} message what went wrong
   * @param {string} nextStep what to do about it
   */
  constructor(message, nextStep) {
    super(message);
    this.name = "BootstrapError";
    this.nextStep = nextStep;
  }
}

/** Does a step, and then says what it was and how long it took; a terminal also shows it while it runs. */
export async function reportStep(what, detail, work) {
  const { stderr } = process;
  const line = `${what.padEnd(23)} ${detail.padEnd(48)}`;
  if (stderr.isTTY) {
    stderr.write(`… ${line.trimEnd()}`);
  }
  const startMs = Date.now();
  const patience = setTimeout(() => {
    if (!stderr.isTTY) {
      stderr.write(`… ${line.trimEnd()}\n`);
    }
  }, patienceMs);
  try {
    const result = await work();
    const seconds = (Date.now() - startMs) / 1000;
    if (stderr.isTTY) {
      stderr.write("\r\u001B[K");
    }
    stderr.write(`✓ ${line} ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s\n`);
    return result;
  } catch (error) {
    if (stderr.isTTY) {
      stderr.write("\n");
    }
    throw error;
  } finally {
    clearTimeout(patience);
  }
}

/** Writes why nothing was started. An error that nobody foresaw keeps its stack. */
export function reportProblem(error) {
  if (error instanceof BootstrapError) {
    process.stderr.write(`✗ ${error.message}\n  ${error.nextStep}\n`);
  } else {
    process.stderr.write(`✗ ${error instanceof Error ? error.stack : String(error)}\n`);
  }
}
