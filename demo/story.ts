/** The demo's voice: one line for each thing that happened. */

export interface Story {
  line(text: string): void;
  /** `✓ what   detail   1.7 s` */
  done(what: string, detail: string, milliseconds?: number): void;
  failed(what: string, detail: string): void;
  /** A numbered tool call with its verdict. */
  call(number: number, what: string, verdict: "allowed" | "denied" | "ended", detail: string): void;
}

const whatWidth = 24;
const detailWidth = 58;
const callWidth = 50;
const verdictWidth = 9;

/** Writes to a stream; colours only where a person reads and has not said no. */
export function createStory(
  stream: { readonly isTTY?: boolean; write(text: string): unknown },
  environment: NodeJS.ProcessEnv,
): Story {
  const colours =
    (stream.isTTY === true && (environment["NO_COLOR"] ?? "") === "") || (environment["FORCE_COLOR"] ?? "0") !== "0";
  const paint = (code: number, text: string): string => (colours ? `\u001b[${code}m${text}\u001b[0m` : text);
  const line = (text: string): void => {
    stream.write(`${text.trimEnd()}\n`);
  };
  const verdictColours = { allowed: 32, denied: 31, ended: 33 } as const;
  return {
    line,
    done: (what, detail, milliseconds) => {
      const time = milliseconds === undefined ? "" : `${(milliseconds / 1000).toFixed(1)} s`;
      line(
        `${paint(32, "✓")} ${what.padEnd(whatWidth)} ${milliseconds === undefined ? detail : detail.padEnd(detailWidth)} ${time}`,
      );
    },
    failed: (what, detail) => line(`${paint(31, "✗")} ${what.padEnd(whatWidth)} ${detail}`),
    call: (number, what, verdict, detail) =>
      line(
        `${String(number).padStart(4)} ${shorten(what).padEnd(callWidth)} ${paint(verdictColours[verdict], verdict.padEnd(verdictWidth))} ${detail}`,
      ),
  };
}

function shorten(text: string): string {
  return text.length > callWidth ? `${text.slice(0, callWidth - 1)}…` : text;
}
