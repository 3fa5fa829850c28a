/**
 * The composition root: configuration in, a running node out. The one file that knows every module.
 *
 * Start: state store → ledger → accounts and resources as declared → leftovers of a killed node dropped → listen.
 * Stop: nothing new is taken → sessions end and are recorded → rights are dropped at the resources → ledger → state store.
 */
import { randomBytes as cryptoRandomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";

import { startControlServer } from "#api/server.ts";
import type { ControlServer } from "#api/server.ts";
import type { Clock } from "#domain/clock.ts";
import type { StatusView } from "#domain/control.ts";
import { SallyportError } from "#domain/errors.ts";
import type { IdSource, ResourceId } from "#domain/ids.ts";
import { idSource } from "#domain/ids.ts";
import { limits } from "#domain/limits.ts";
import { NodeControlPlane } from "#gateway/control-plane.ts";
import { CountedEntries } from "#gateway/counted-entries.ts";
import { GrantBook } from "#gateway/grants.ts";
import { listen } from "#gateway/listener.ts";
import type { Listener } from "#gateway/listener.ts";
import { reconcile } from "#gateway/reconcile.ts";
import type { Declared, Reconciled } from "#gateway/reconcile.ts";
import type { ResourceAccess } from "#protocols/driver.ts";
import { RunBook } from "#gateway/runs.ts";
import { SessionBook } from "#gateway/sessions.ts";
import { makeVerifier, scramIterations, scramSaltBytes } from "#identity/scram.ts";
import { openLedger } from "#ledger/append.ts";
import type { OpenLedger } from "#ledger/append.ts";
import type { Files } from "#ledger/files.ts";
import { compilePolicySet } from "#policy/decide.ts";
import { readOperatorPolicies } from "#policy/operator.ts";
import { remembered } from "#protocols/postgres/analysis-cache.ts";
import { postgresDriver } from "#protocols/postgres/driver.ts";
import type { PostgresDriver } from "#protocols/postgres/driver.ts";
import { openPostgresResource } from "#protocols/postgres/resource.ts";
import { createAnalyzer } from "#sql/analyze.ts";
import { startEmbeddedPostgres } from "#store/embedded-postgres.ts";
import { openStore } from "#store/store.ts";
import type { Store } from "#store/store.ts";
import type { Config } from "./config.ts";
import { ensureNodeSecrets, loadControlToken, loadRightsKey, nodePlaces } from "./config-secrets.ts";
import { checkRows, keepRightsHeads, readRightsHeads } from "./main-rights.ts";
import type { Log } from "./telemetry.ts";

export interface NodeOptions {
  readonly log: Log;
  /** Stops the node when it aborts. */
  readonly signal?: AbortSignal;
  /** The file operations of the ledger; the file system's own when not given. */
  readonly ledgerFiles?: Files;
  /** Told of each step of the start that takes time, for a person who waits. */
  readonly onStep?: (step: string) => void;
}

export interface RunningNode {
  status(): Promise<StatusView>;
  /** Drains and stops; a second call waits for the same stop. */
  stop(): Promise<void>;
  /** Resolves when the node has stopped; rejects when it stopped because it could not go on. */
  readonly ended: Promise<void>;
}

/** This program's version, from its package. */
export function version(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  const found = /"version":\s*"([^"]+)"/.exec(text)?.[1];
  return found ?? "0.0.0";
}

const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicUs: () => Math.round(performance.now() * 1000),
};
const randomBytes = (length: number): Uint8Array => cryptoRandomBytes(length);

/** How often a resource is asked whether its catalog has changed. */
const catalogPollMs = 2000;

/**
 * Starts a node. What was started is stopped again when a later step fails.
 * @throws SallyportError with the step that failed and what to do.
 */
export async function startNode(config: Config, options: NodeOptions): Promise<RunningNode> {
  const stack = new AsyncDisposableStack();
  try {
    const node = await compose(config, options, stack);
    const stop = once(async () => {
      await node.drain();
      await stack.disposeAsync();
    });
    options.signal?.addEventListener("abort", () => {
      stop().catch((error: unknown) => {
        options.log.error("stopping failed", { error });
      });
    });
    return { status: () => node.control.status(), stop, ended: endedOf(node.ledger, stop) };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** The end of a node: a stop that was asked for, or a ledger that cannot write, after which nothing may pass. */
async function endedOf(
  ledger: OpenLedger,
  stop: (() => Promise<void>) & { readonly done: Promise<void> },
): Promise<void> {
  const failure = await Promise.race([ledger.failed, stop.done.then(() => null)]);
  if (failure !== null) {
    await stop().catch(() => null);
    throw failure;
  }
}

interface Composed {
  readonly control: NodeControlPlane;
  readonly ledger: OpenLedger;
  drain(): Promise<void>;
}

async function compose(config: Config, options: NodeOptions, stack: AsyncDisposableStack): Promise<Composed> {
  const { log } = options;
  const step = options.onStep ?? ((): void => {});
  const startedAtMs = clock.nowMs();
  const places = nodePlaces(config.directory);
  await ensureNodeSecrets(config.directory);
  const ids = idSource(randomBytes);
  const onFailure = (what: string, error: unknown): void => {
    log.warn(`failed: ${what}`, { error });
  };

  step("state store");
  const store = await openState(config, stack, options);
  step("ledger");
  const ledger = await openLedger({
    directory: places.ledger,
    keysDirectory: places.keys,
    origin: `sallyport.local/${config.node.name}`,
    clock,
    randomBytes,
    ...(options.ledgerFiles === undefined ? {} : { files: options.ledgerFiles }),
  });
  // Closed after everything that records, and before the state store.
  stack.defer(() => ledger.close());
  await ledger.record(
    { entry: { type: "node.started", software: `sallyport ${version()}`, runtime: `node ${process.version}` } },
    null,
  );
  const heads = await readRightsHeads(places.ledger, places.keys);
  checkRows(await store.verify(), heads);
  await keepRightsHeads(heads, places.keys);

  const records = { ledger, ids, clock };
  const reconciled = await reconcile({ ...records, ...store }, declaredIn(config));
  const resources = await openResources({ config, store, ledger, ids, stack, log });
  const operatorPolicies = readOperatorPolicies(config.policies.map(({ path, text }) => ({ file: path, text })));
  const grants = new GrantBook({
    ...records,
    randomBytes,
    grants: store.grants,
    credentials: store.credentials,
    principals: store.principals,
    provisioned: store.provisioned,
    resources,
    compilePolicies: (input) => compilePolicySet({ ...input, operatorPolicies }),
    onFailure,
  });
  step("leftovers");
  await sweepLeftovers(grants, store, resources, onFailure);
  await applyGrants(grants, store, reconciled);

  const runs = new RunBook(records);
  const sessions = new SessionBook({
    ...records,
    grants,
    runs,
    credentials: store.credentials,
    principals: store.principals,
    onFailure,
  });
  step("listeners");
  const listener = await listen(config.listen.postgres, await makeDriver(ids, stack), sessions);
  const control = new NodeControlPlane({
    ...records,
    ledgerDirectory: places.ledger,
    randomBytes,
    makeVerifier: (password) => makeVerifier(password, randomBytes(scramSaltBytes), scramIterations),
    principals: store.principals,
    credentials: store.credentials,
    grantStore: store.grants,
    grants,
    sessions,
    runs,
    resources,
    masks: config.masks,
    onFailure,
    version: version(),
    startedAtMs,
    postgres: listener,
    control: config.listen.control,
  });
  const refused = new CountedEntries(ledger, (code, count) => ({ type: "control.refused", code, count }));
  const api = await startApi(config, control, refused, log);
  const timers = startTimers({ grants, sessions, resources, onFailure });
  void ledger.failed.then(() => sessions.stop("failed", { ...cannotRecord, decision: ids("dec") }));
  log.info("the node is up", { port: listener.port });
  const parts = { listener, api, refused, timers, sessions, runs, grants, ledger, control, ids };
  return { control, ledger, drain: once(() => drain(parts)) };
}

const cannotRecord = {
  code: "ledger.unavailable",
  reason: "the gateway cannot record, so nothing passes",
  nextStep: "Tell the gateway's operator; `sallyport ledger status` says why.",
} as const;

function declaredIn(config: Config): Declared {
  return {
    principals: config.principals,
    resources: config.resources.map(({ name, login, labels }) => ({
      name,
      host: login.host,
      port: login.port,
      database: login.database,
      labels,
    })),
    masks: config.masks,
    grants: config.grants,
  };
}

/** The PostgreSQL driver, its parser loaded; its handshakes end with the node. */
async function makeDriver(ids: IdSource, stack: AsyncDisposableStack): Promise<PostgresDriver> {
  const analyzer = await createAnalyzer();
  const stopping = new AbortController();
  stack.defer(() => {
    stopping.abort(new Error("the node is stopping"));
  });
  return postgresDriver({
    analyze: remembered((text, context) => analyzer.analyze(text, context)),
    ids,
    randomBytes,
    mockKey: randomBytes(32),
    nowUs: clock.monotonicUs,
    signal: stopping.signal,
  });
}

/** The user's server, or the embedded one, with this program's schema. */
async function openState(config: Config, stack: AsyncDisposableStack, options: NodeOptions): Promise<Store> {
  const places = nodePlaces(config.directory);
  let connection;
  if (config.state.kind === "server") {
    const { host, port, database, user, password } = config.state.login;
    connection = { host, port, database, user, password: password?.reveal() ?? "" };
  } else {
    const postgres = await startEmbeddedPostgres({ directory: places.postgres, durable: true });
    stack.defer(() => postgres.stop());
    const { host, port, user, password } = postgres;
    connection = { host, port, database: "postgres", user, password };
  }
  const key = await loadRightsKey(config.directory);
  const store = await openStore(connection, key, {
    onIdleError: (error) => {
      options.log.warn("the state store closed an idle connection", { error });
    },
  });
  stack.defer(() => store.close());
  return store;
}

interface ResourceParts {
  readonly config: Config;
  readonly store: Store;
  readonly ledger: OpenLedger;
  readonly ids: IdSource;
  readonly stack: AsyncDisposableStack;
  readonly log: Log;
}

/** One access for each declared resource; nothing is connected until it is needed. */
async function openResources(parts: ResourceParts): Promise<ReadonlyMap<ResourceId, ResourceAccess>> {
  const { config, store, ledger, ids, stack } = parts;
  const resources = new Map<ResourceId, ResourceAccess>();
  for (const declared of config.resources) {
    const resource = await store.resources.byName(declared.name);
    if (resource === null) {
      throw new SallyportError("resource.unknown", "gateway", `the resource "${declared.name}" was not stored`);
    }
    const access = openPostgresResource({
      resource,
      login: { user: declared.login.user, password: declared.login.password?.reveal() ?? "" },
      journal: {
        begin: async (action, object, statements) => {
          const change = ids("chg");
          const intent = await ledger.record(
            {
              entry: {
                type: "provision.intent",
                change,
                resource: resource.id,
                action,
                object,
                statements: statements.length,
              },
              payload: {
                key: "node",
                fields: { statements: statements.join(";\n").slice(0, limits.payloadBytesMax / 2) },
              },
            },
            change,
          );
          return async (result) => {
            await ledger.record(
              { entry: { type: "provision.outcome", change, intent: intent.index, ...result } },
              change,
            );
          };
        },
      },
      clock,
      randomBytes,
    });
    stack.defer(() => access.close());
    resources.set(resource.id, access);
  }
  return resources;
}

/** What a killed node left at its resources is dropped before anyone is let in: its passwords are known to nobody any more. */
async function sweepLeftovers(
  grants: GrantBook,
  store: Store,
  resources: ReadonlyMap<ResourceId, ResourceAccess>,
  onFailure: (what: string, error: unknown) => void,
): Promise<void> {
  for (const row of await store.provisioned.roles()) {
    const access = resources.get(row.resource);
    try {
      if (access !== undefined) {
        await grants.dropRole(access, row.role);
      }
    } catch (error) {
      onFailure(`dropping the left-over role ${row.role}`, error);
    }
  }
  for (const row of await store.provisioned.scopes()) {
    const access = resources.get(row.resource);
    try {
      if (access !== undefined) {
        await grants.dropScope(access, row);
      }
    } catch (error) {
      onFailure(`dropping the left-over scope ${row.role}`, error);
    }
  }
}

async function applyGrants(grants: GrantBook, store: Store, reconciled: Reconciled): Promise<void> {
  for (const grant of reconciled.toEnd) {
    await grants.end(grant.id, "removed", "the configuration no longer declares it", { kind: "config" });
  }
  for (const grant of await store.grants.inState(["pending", "active"])) {
    if (clock.nowMs() >= grant.expiresAtMs) {
      await grants.end(grant.id, "expired", "its time was over", { kind: "gateway" });
    }
  }
  // Runs do not outlive the node that they ran under: nor do the credentials that were minted for them.
  for (const grant of await store.grants.inState(["pending", "active"])) {
    for (const credential of await store.credentials.ofGrant(grant.id)) {
      if (credential.runId !== null) {
        await grants.endCredential(credential, { kind: "gateway" });
      }
    }
  }
  for (const grant of reconciled.toAdd) {
    await grants.add(grant, { kind: "config" }, {});
  }
}

async function startApi(
  config: Config,
  control: NodeControlPlane,
  refusedRequests: CountedEntries,
  log: Log,
): Promise<ControlServer> {
  const token = await loadControlToken(nodePlaces(config.directory).controlToken);
  return startControlServer({
    control,
    host: config.listen.control.host,
    port: config.listen.control.port,
    token: token.reveal(),
    onRefused: (refused) => {
      refusedRequests.add(refused.code);
      log.warn("a control request was refused", { code: refused.code, request: refused.requestId });
    },
    onInternalError: (error, requestId) => {
      log.error("a control request failed", { error, request: requestId });
    },
  });
}

interface TimerParts {
  readonly grants: GrantBook;
  readonly sessions: SessionBook;
  readonly resources: ReadonlyMap<ResourceId, ResourceAccess>;
  readonly onFailure: (what: string, error: unknown) => void;
}

/** Deadlines a few times a second; the catalogs of resources in use every few seconds. */
function startTimers(parts: TimerParts): { stop(): void } {
  const deadlines = setInterval(() => {
    parts.grants.sweep();
    parts.sessions.sweep();
  }, limits.deadlineSweepMs);
  let polling = false;
  const catalogs = setInterval(() => {
    if (polling) {
      return;
    }
    polling = true;
    const used = [...parts.resources.values()].filter((access) => access.found() !== null);
    void Promise.all(
      used.map((access) =>
        access.refresh().catch((error: unknown) => {
          parts.onFailure(`reading the catalog of ${access.resource.name}`, error);
        }),
      ),
    ).finally(() => {
      polling = false;
    });
  }, catalogPollMs);
  return {
    stop: () => {
      clearInterval(deadlines);
      clearInterval(catalogs);
    },
  };
}

interface DrainParts {
  readonly listener: Listener;
  readonly api: ControlServer;
  readonly refused: CountedEntries;
  readonly timers: { stop(): void };
  readonly sessions: SessionBook;
  readonly runs: RunBook;
  readonly grants: GrantBook;
  readonly ledger: OpenLedger;
  readonly control: NodeControlPlane;
  readonly ids: IdSource;
}

async function drain(parts: DrainParts): Promise<void> {
  const { listener, api, refused, timers, sessions, runs, grants, ledger, control, ids } = parts;
  timers.stop();
  const closed = listener.close();
  for (const run of runs.ids()) {
    await control.endRun(run, "the gateway is stopping").catch(() => null);
  }
  await sessions.stop("drained", {
    code: "gateway.draining",
    reason: "the gateway is stopping",
    nextStep: "Connect again in a moment.",
    decision: ids("dec"),
  });
  await Promise.all([closed, api.close()]);
  await refused.flush();
  await grants.close();
  await ledger.record({ entry: { type: "node.stopped", reason: "stopped" } }, null).catch(() => null);
}

/** The same promise for every call. */
function once(work: () => Promise<void>): (() => Promise<void>) & { readonly done: Promise<void> } {
  const { promise: done, resolve } = Promise.withResolvers<void>();
  let running: Promise<void> | null = null;
  const call = (): Promise<void> => {
    running ??= work().finally(() => {
      resolve();
    });
    return running;
  };
  return Object.assign(call, { done });
}
