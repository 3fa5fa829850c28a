/** Names whose values are credentials. Pure. */

/** How such names end, without case and separators: `db_password`, `dbPassword` and `DB-PASSWORD` are one. */
const secretEndings = [
  "password",
  "passwords",
  "passwordhash",
  "passwd",
  "passphrase",
  "passcode",
  "pwd",
  "secret",
  "secrets",
  "token",
  "apikey",
  "apikeys",
  "privatekey",
  "secretkey",
  "accesskey",
  "signingkey",
  "encryptionkey",
  "authorization",
  "credential",
  "credentials",
  "cookie",
] as const;

/** Tokens that say where one is, and let nobody in. */
const plainTokens = /(?:progress|page|pagination|continuation|cancellation|cancel|cursor|sync|start|next)token$/;

/** Names whose value is the rest of the line, spaces included. */
const lineNames = /(?:authorization|cookie)$/;

/** Longest name that is looked at. */
export const secretNameCharactersMax = 64;

function compact(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z]/g, "");
}

/** Whether what is stored under `name` is a credential, as far as its name tells. */
export function isSecretName(name: string): boolean {
  if (name.length > secretNameCharactersMax) {
    return false;
  }
  const plain = compact(name);
  return secretEndings.some((ending) => plain.endsWith(ending)) && !plainTokens.test(plain);
}

/** Whether the value of a secret name goes on to the end of its line, as a header's does. */
export function isLineName(name: string): boolean {
  return lineNames.test(compact(name));
}
