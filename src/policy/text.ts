/** Cedar text, written safely. */

/** One policy: its id, which is what a decision names, and its text. */
export interface PolicyText {
  readonly id: string;
  readonly text: string;
}

/**
 * A Cedar string literal. All but printable ASCII is escaped, so that no name can end the literal or look like another.
 * @throws RangeError for a lone surrogate, which no name in a database can hold.
 */
export function cedarString(value: string): string {
  if (!value.isWellFormed()) {
    throw new RangeError("a lone surrogate cannot stand in a policy");
  }
  let text = '"';
  for (const character of value) {
    if (character === '"' || character === "\\") {
      text += `\\${character}`;
    } else if (character >= " " && character <= "~") {
      text += character;
    } else {
      text += `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
    }
  }
  return `${text}"`;
}
