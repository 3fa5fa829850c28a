/** What `doctor` can see of a PostgreSQL with the login that the configuration gives. It only reads. */
import type { DatabaseLogin } from "#config-address.ts";
import type { Finding } from "./doctor.ts";

const timeoutMs = 5000;
/** VALID UNTIL is judged by the database's clock: what it is off by, a grant's end is off by. */
const skewWarningMs = 2000;
const skewFailureMs = 30_000;

const question = `select
  pg_catalog.current_setting('server_version') as version,
  pg_catalog.current_setting('server_version_num')::int as number,
  rolsuper as superuser,
  rolcreaterole as createrole,
  pg_catalog.pg_is_in_recovery() as replica,
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') as creates,
  (extract(epoch from pg_catalog.clock_timestamp()) * 1000)::float8 as now_ms
from pg_catalog.pg_roles where rolname = current_user`;

interface Answer {
  readonly version: string;
  readonly number: number;
  readonly superuser: boolean;
  readonly createrole: boolean;
  readonly replica: boolean;
  readonly creates: boolean;
  readonly now_ms: number;
}

/** Looks at one database: `provisioner` for a resource, `state` for the state store. */
export async function examineDatabase(
  area: string,
  login: DatabaseLogin,
  use: "provisioner" | "state",
): Promise<readonly Finding[]> {
  const { Client } = await import("pg");
  const place = `${login.host}:${login.port}/${login.database}`;
  const client = new Client({
    host: login.host,
    port: login.port,
    database: login.database,
    user: login.user,
    password: login.password?.reveal() ?? "",
    connectionTimeoutMillis: timeoutMs,
    query_timeout: timeoutMs,
    application_name: "sallyport doctor",
  });
  // A connection that breaks is told by the query that was using it.
  client.on("error", () => {});
  try {
    await client.connect();
    const beforeMs = Date.now();
    const { rows } = await client.query<Answer>(question);
    const [answer] = rows;
    if (answer === undefined) {
      return [failure(area, `${place} does not know its own role`, "look at the server's log")];
    }
    return judge({ area, place, user: login.user, use, answer, skewMs: answer.now_ms - (beforeMs + Date.now()) / 2 });
  } catch (error) {
    const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "no answer";
    return [failure(area, `${place} cannot be reached (${code})`, fixOfConnection(code))];
  } finally {
    await client.end().catch(() => {
      // It was never open; what that means has been said above.
    });
  }
}

function fixOfConnection(code: string): string {
  switch (code) {
    case "ECONNREFUSED":
      return "start the server, or correct host and port in the configuration";
    case "28P01":
    case "28000":
      return "correct user and password where the configuration refers to them";
    case "3D000":
      return "make the database, or correct its name";
    default:
      return "correct the URL where the configuration refers to it, and look at the server's log";
  }
}

interface Seen {
  readonly area: string;
  readonly place: string;
  readonly user: string;
  readonly use: "provisioner" | "state";
  readonly answer: Answer;
  readonly skewMs: number;
}

function judge({ area, place, user, use, answer, skewMs }: Seen): readonly Finding[] {
  const findings: Finding[] = [{ area, verdict: "ok", found: `${place}: PostgreSQL ${answer.version}`, fix: null }];
  const role = `"${user.replaceAll('"', '""')}"`;
  if (answer.number < 150_000) {
    findings.push(
      warning(area, `PostgreSQL ${answer.version} is older than 15, which is tested`, "use PostgreSQL 15 or newer"),
    );
  }
  if (answer.replica) {
    findings.push(failure(area, `${place} is a replica: no role can be made there`, "name the primary server"));
  }
  if (!answer.creates) {
    findings.push(
      failure(area, `${user} may not create schemas in the database`, `grant create on database … to ${role}`),
    );
  }
  if (use === "provisioner" && !answer.superuser && !answer.createrole) {
    findings.push(
      failure(area, `${user} may not make roles, so no grant can be given`, `alter role ${role} createrole`),
    );
  }
  if (use === "provisioner" && answer.superuser) {
    findings.push(
      warning(
        area,
        `${user} is a superuser, which is more than the provisioner needs`,
        "make a role with CREATEROLE for it, as docs/configuration.md says",
      ),
    );
  }
  const skew = `its clock is ${(Math.abs(skewMs) / 1000).toFixed(1)} s ${skewMs > 0 ? "ahead of" : "behind"} this machine's`;
  const fix = "synchronise both clocks (NTP): a grant's role ends by the database's clock";
  if (Math.abs(skewMs) >= skewWarningMs) {
    findings.push(Math.abs(skewMs) >= skewFailureMs ? failure(area, skew, fix) : warning(area, skew, fix));
  }
  return findings;
}

function failure(area: string, found: string, fix: string): Finding {
  return { area, verdict: "failure", found, fix };
}

function warning(area: string, found: string, fix: string): Finding {
  return { area, verdict: "warning", found, fix };
}
