/** A PostgreSQL resource with the provisioner's login: what it allows, its catalog, and rights made and retired there. */
import pg from "pg";

import type { Clock } from "#domain/clock.ts";
import { SallyportError } from "#domain/errors.ts";
import { limits } from "#domain/limits.ts";
import type { PostgresResource } from "#domain/resource.ts";
import type { ProvisionJournal, ResourceAccess, ResourceReadiness } from "#protocols/driver.ts";
import type { Catalog } from "#sql/catalog.ts";
import { catalogSignature, loadCatalog } from "./catalog-loader.ts";
import { openProvisioner } from "./provisioner.ts";

export interface PostgresResourceParts {
  readonly resource: PostgresResource;
  /** The provisioner's login. */
  readonly login: { readonly user: string; readonly password: string };
  readonly journal: ProvisionJournal;
  readonly clock: Clock;
  readonly randomBytes: (length: number) => Uint8Array;
}

/** Connects when it is first needed. */
export function openPostgresResource(parts: PostgresResourceParts): ResourceAccess {
  const { resource, login } = parts;
  const connection = { host: resource.host, port: resource.port, database: resource.database, ...login };
  const provisioner = openProvisioner({ ...parts, connection });
  const catalogs = new CatalogWatch(connection, resource.name);
  let found: ResourceReadiness | null = null;
  let preparing: Promise<ResourceReadiness> | null = null;
  const prepare = async (): Promise<ResourceReadiness> => {
    const readiness = await provisioner.prepare();
    await catalogs.refresh();
    found = readiness;
    return readiness;
  };
  return {
    resource,
    provisioner,
    ready: () => {
      // A resource that could not be reached is asked again by the next who needs it.
      preparing ??= prepare().catch((error: unknown) => {
        preparing = null;
        throw error;
      });
      return preparing;
    },
    found: () => found,
    catalog: () => catalogs.current(),
    refresh: () => catalogs.refresh(),
    close: async () => {
      await catalogs.close();
      await provisioner.close();
    },
  };
}

/** The catalog snapshot, replaced as a whole when its signature has changed. */
class CatalogWatch {
  readonly #pool: pg.Pool;
  readonly #name: string;
  #catalog: Catalog | null = null;
  #refreshing: Promise<void> | null = null;

  constructor(connection: pg.PoolConfig, name: string) {
    this.#name = name;
    this.#pool = new pg.Pool({
      ...connection,
      max: 1,
      connectionTimeoutMillis: limits.upstreamConnectMs,
      idleTimeoutMillis: 60_000,
      application_name: "sallyport catalog",
    });
    // An idle connection that the server closed is opened again by the next query.
    this.#pool.on("error", () => {});
    // A client that is ended while it is in use says so itself; the query that it was running fails with it.
    this.#pool.on("connect", (client) => client.on("error", () => {}));
  }

  current(): Catalog {
    if (this.#catalog === null) {
      throw new SallyportError("resource.unavailable", "upstream", `the catalog of "${this.#name}" is not loaded`);
    }
    return this.#catalog;
  }

  /** One at a time; who comes while one is running starts another after it, since what it waits for may be newer. */
  async refresh(): Promise<void> {
    while (this.#refreshing !== null) {
      await this.#refreshing.catch(() => null);
    }
    this.#refreshing = this.#load().finally(() => {
      this.#refreshing = null;
    });
    await this.#refreshing;
  }

  async #load(): Promise<void> {
    let client: pg.PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (cause) {
      throw new SallyportError("resource.unavailable", "upstream", `the resource "${this.#name}" cannot be reached`, {
        cause,
        nextStep: "Check the resource's url in the configuration, and that the server runs.",
      });
    }
    try {
      if (this.#catalog === null || (await catalogSignature(client)) !== this.#catalog.version) {
        this.#catalog = await loadCatalog(client);
      }
    } finally {
      client.release();
    }
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }
}
