/** Where things are in a ledger's directory. Tiles and bundles are named by `tlog/tile.ts`. */

/** Format name in `log.json`; a reader refuses any other. */
export const logFormat = "sallyport-ledger/1";
export const metadataFile = "log.json";
export const checkpointFile = "checkpoint";
/** A checkpoint on its way: renamed over `checkpoint` once it is on stable storage. */
export const checkpointDraftFile = "checkpoint.new";
export const segmentDirectory = "wal";
export const payloadDirectory = "payload";
/** Claims of processes that have the log open. They hold no evidence. */
export const lockDirectory = "lock";

const numberDigits = 16;

function parsePadded(text: string): number | null {
  const value = Number(text);
  return /^[0-9]+$/.test(text) && Number.isSafeInteger(value) ? value : null;
}

/** Write-ahead segments are numbered from 1 and never reuse a number within one directory listing. */
export function segmentName(sequence: number): string {
  return `${String(sequence).padStart(numberDigits, "0")}.wal`;
}

export function parseSegmentName(name: string): number | null {
  const sequence = parsePadded(name.replace(/\.wal$/, ""));
  return sequence !== null && sequence > 0 && segmentName(sequence) === name ? sequence : null;
}

/** A payload file is named after the index of its first entry. */
export function payloadFileName(firstIndex: number): string {
  return `${String(firstIndex).padStart(numberDigits, "0")}.payload`;
}

export function parsePayloadFileName(name: string): number | null {
  const index = parsePadded(name.replace(/\.payload$/, ""));
  return index !== null && payloadFileName(index) === name ? index : null;
}
