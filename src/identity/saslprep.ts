/** SASLprep (RFC 4013) as PostgreSQL applies it to passwords, so that both sides hash the same bytes. */
import { leftToRightRanges, rightToLeftRanges, unassignedRanges } from "./saslprep-tables.ts";

/** C.1.2: mapped to a space. */
const nonAsciiSpaces = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/gu;

/** B.1: mapped to nothing. */
const mappedToNothing = /\u00ad|\u034f|\u1806|[\u180b-\u180d]|\u200c|\u200d|\u2060|[\ufe00-\ufe0f]|\ufeff/gu;

/** C.2.1, C.2.2, C.3 to C.9. */
const prohibited = new RegExp(
  "[" +
    "\\u0000-\\u001f\\u007f-\\u009f\\u06dd\\u070f\\u180e\\u200c\\u200d\\u2028\\u2029\\u2060-\\u2063\\u206a-\\u206f" +
    "\\ufeff\\ufff9-\\ufffd\\u{1d173}-\\u{1d17a}" +
    "\\p{Private_Use}\\p{Noncharacter_Code_Point}\\p{Surrogate}" +
    "\\u2ff0-\\u2ffb\\u0340\\u0341\\u200e\\u200f\\u202a-\\u202e\\u{e0001}\\u{e0020}-\\u{e007f}" +
    "]",
  "u",
);

/**
 * The bytes of a password that are hashed. PostgreSQL takes pure ASCII as it is, and takes the password unprepared where
 * SASLprep would refuse it (a prohibited or unassigned character, mixed directions, nothing left).
 */
export function preparePassword(password: string): Buffer {
  return Buffer.from(isAscii(password) ? password : (saslprep(password) ?? password), "utf8");
}

/** The prepared string, or null where RFC 4013 prohibits it. */
export function saslprep(text: string): string | null {
  const prepared = text.replace(nonAsciiSpaces, " ").replace(mappedToNothing, "").normalize("NFKC");
  if (prepared === "" || prohibited.test(prepared)) {
    return null;
  }
  const codes = Array.from(prepared, (character) => character.codePointAt(0) ?? 0);
  if (codes.some((code) => inRanges(unassigned, code)) || !isOneDirection(codes)) {
    return null;
  }
  return prepared;
}

function isAscii(text: string): boolean {
  // The NUL of a password that holds one stays: what it means is decided where passwords are set.
  return /^[\0-\u007f]*$/u.test(text);
}

/** RFC 3454 section 6: right-to-left text begins and ends so, and holds no left-to-right character. */
function isOneDirection(codes: readonly number[]): boolean {
  if (!codes.some((code) => inRanges(rightToLeft, code))) {
    return true;
  }
  const ends = [codes.at(0), codes.at(-1)];
  return (
    ends.every((code) => code !== undefined && inRanges(rightToLeft, code)) &&
    !codes.some((code) => inRanges(leftToRight, code))
  );
}

interface Range {
  readonly first: number;
  readonly last: number;
}

const unassigned = readRanges(unassignedRanges);
const rightToLeft = readRanges(rightToLeftRanges);
const leftToRight = readRanges(leftToRightRanges);

function readRanges(text: string): readonly Range[] {
  let end = 0;
  return text.split(" ").map((part) => {
    const [distance = "0", extent = "0"] = part.split("-");
    const first = end + Number.parseInt(distance, 36);
    end = first + Number.parseInt(extent, 36);
    return { first, last: end };
  });
}

function inRanges(ranges: readonly Range[], code: number): boolean {
  let low = 0;
  let high = ranges.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const range = ranges[middle];
    if (range === undefined || code < range.first) {
      high = middle - 1;
    } else if (code > range.last) {
      low = middle + 1;
    } else {
      return true;
    }
  }
  return false;
}
