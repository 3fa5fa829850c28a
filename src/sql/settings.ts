/** Which settings a session may read and change, and to what (MASKING.md, L0). A setting can change what a statement means. */

/** The most that a session may give a statement or an idle transaction: the pinned values can only be lowered. */
export const sessionTimeoutMsMax = 60_000;

/** Settings that a client may read with SHOW and `current_setting`. */
const readable = new Set(
  "application_name bytea_output client_encoding datestyle default_text_search_config default_transaction_deferrable default_transaction_isolation default_transaction_read_only escape_string_warning extra_float_digits idle_in_transaction_session_timeout in_hot_standby integer_datetimes intervalstyle is_superuser lock_timeout max_connections max_identifier_length search_path server_encoding server_version server_version_num standard_conforming_strings statement_timeout timezone transaction_deferrable transaction_isolation transaction_read_only".split(
    " ",
  ),
);

const timeoutPattern = /^\s*(\d{1,9})\s*(us|ms|s|min|h|d)?\s*$/;
const unitMs: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

function isLoweredTimeout(value: string): boolean {
  const [, amount, unit] = timeoutPattern.exec(value) ?? [];
  const ms = Number(amount ?? 0) * (unitMs[unit ?? "ms"] ?? 0);
  // 0 would take the limit off.
  return ms >= 1 && ms <= sessionTimeoutMsMax;
}

const matching =
  (pattern: RegExp) =>
  (value: string): boolean =>
    pattern.test(value);

const writable: ReadonlyMap<string, (value: string) => boolean> = new Map([
  ["application_name", matching(/^[^\u0000-\u001f\u007f]{0,63}$/u)],
  ["client_encoding", matching(/^utf-?8$/i)],
  ["datestyle", matching(/^[A-Za-z]{2,12}( *, *[A-Za-z]{2,12})?$/)],
  ["intervalstyle", matching(/^[A-Za-z_0-9]{1,32}$/)],
  ["timezone", matching(/^[A-Za-z0-9_+\-/:.,<> ]{1,64}$/)],
  ["extra_float_digits", matching(/^(-?\d|-1[0-5])$/)],
  ["statement_timeout", isLoweredTimeout],
  ["idle_in_transaction_session_timeout", isLoweredTimeout],
]);

/** Whether a session may read a setting. Names are compared without case, as PostgreSQL does. */
export function isReadableSetting(name: string): boolean {
  return readable.has(name.toLowerCase());
}

/** Whether a session may set a setting at all, and take it back to what the grant pins. */
export function isWritableSetting(name: string): boolean {
  return writable.has(name.toLowerCase());
}

/** Whether a session may give a setting this value, by SET or by `set_config`. */
export function checkSetting(name: string, value: string): boolean {
  return writable.get(name.toLowerCase())?.(value) ?? false;
}
