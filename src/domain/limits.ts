/** Every bound of the gateway, with its reason. Names end in the unit. */
export const limits = {
  /** A statement longer than this is refused before a byte goes out; the parser blocks the thread about 0.1 ms a KB. */
  statementBytesMax: 1024 * 1024,
  /** One frontend message: a statement with its bind values. */
  frontendMessageBytesMax: 4 * 1024 * 1024,
  /** One backend message: a row. PostgreSQL's own limit is 1 GiB; a row of more than this is refused. */
  backendMessageBytesMax: 64 * 1024 * 1024,
  /** A startup packet; PostgreSQL's own limit (`MAX_STARTUP_PACKET_LENGTH`). */
  startupBytesMax: 10_000,
  /** Messages before authentication are short: a SASL exchange. */
  authenticationMessageBytesMax: 4096,
  /** From accept to authenticated; a client that says nothing costs a socket no longer than this. */
  handshakeMs: 10_000,
  /** Connections that have not authenticated yet; past it the oldest is dropped. */
  handshakesMax: 500,
  /** A run whose event stream was not opened by then has nobody behind it. */
  runListenMs: 10_000,
  /** Opening and authenticating the connection to the resource. */
  upstreamConnectMs: 10_000,
  /** A frontend message of names and numbers only (Describe, Execute, Close, Sync); PostgreSQL's own `PQ_SMALL_MESSAGE_LIMIT`. */
  smallMessageBytesMax: 10_000,
  /** A backend message that is short by nature; past it libpq too says that the stream has lost its framing. */
  smallReplyBytesMax: 30_000,
  /** Notices that the resource may send while a login to it is under way; more ends the login. */
  loginNoticesMax: 100,
  /** Rounds of PBKDF2 that a server may ask of us: about half a second of one core. */
  scramIterationsMax: 1_000_000,
  bindParametersMax: 65_535,
  preparedStatementsMax: 1000,
  portalsMax: 1000,
  columnsMax: 1664,
  /** Depth of a parse tree; PostgreSQL's own stack check answers later and dearer. */
  statementDepthMax: 200,
  /** Statements in one Query message. */
  statementsPerQueryMax: 100,
  /** Commands sent upstream whose completion has not come back; past it the client is not read. */
  pipelineCommandsMax: 1000,
  /** Bytes from the resource that wait for their records; past it the resource is not read. */
  releaseBytesMax: 1024 * 1024,
  /** After revocation or expiry the client is answered with errors for this long, then closed with 57P01. */
  endedGraceMs: 60_000,
  /** How often deadlines are looked at, in case a timer was late. */
  deadlineSweepMs: 250,
  sessionsPerGrantMax: 20,
  sessionsMax: 1000,
  /** How long `up` waits for running commands when it is told to stop. */
  drainMs: 5000,
  /** One line of JSON-RPC over stdio. */
  rpcLineBytesMax: 16 * 1024 * 1024,
  /** Requests of one run that have not been answered. */
  callsInFlightMax: 256,
  /** Nesting of a line of JSON-RPC; what passes reaches parsers of servers that recurse. */
  rpcDepthMax: 128,
  /** A method's or tool's name; it stands in the record in clear. */
  rpcNameCharactersMax: 128,
  rpcIdCharactersMax: 256,
  /** Each request of a batch is a record. */
  rpcBatchMessagesMax: 64,
  /** `params` of one request; twice this, escaped, still fits a request to the control endpoint and a payload. */
  callParametersBytesMax: 3 * 1024 * 1024,
  /** A call that its client cancelled and its server never answers counts as in flight for this long. */
  cancelledCallMs: 5000,
  /** After the client has closed its end, calls that are under way may still be answered for this long. */
  runAnswersMs: 30_000,
  /** A server whose input has been closed may end by itself for this long before it is asked to. */
  runInputClosedMs: 300,
  /** A server is asked to end, and after this killed; the official clients wait two seconds for the whole of it. */
  runStopGraceMs: 1000,
  /** The last words of a run to the gateway; the gateway ends the run by itself when the connection goes. */
  runFarewellMs: 2000,
  /** A request to the control endpoint. */
  controlBodyBytesMax: 8 * 1024 * 1024,
  /** An entry of the ledger (C2SP tlog-tiles: a 16-bit length). */
  entryBytesMax: 65_535,
  /** A payload, before encryption: a statement with its values. */
  payloadBytesMax: 8 * 1024 * 1024,
  /** Entries and payloads waiting for a sync; past it, callers wait. */
  ledgerQueueBytesMax: 64 * 1024 * 1024,
  /** Policy sets that the engine holds parsed, about 10 KB a policy; one that is pushed out is parsed again when asked. */
  policySetsMax: 128,
  /** Verdicts that one policy set remembers, and answers to the questions that they are made of. */
  policyVerdictsMax: 2000,
  /** A verdict about more effects than this many characters describe is not remembered. */
  policyVerdictKeyCharactersMax: 4096,
  /** Connections that the gateway itself keeps to a resource, to make and retire rights. */
  provisionConnectionsMax: 4,
  /** One that is not used is closed after this; making another costs a login. */
  provisionIdleMs: 60_000,
  /** The gateway's own SQL waits this long for a lock that an application holds, and is tried again. */
  provisionLockMs: 2000,
  /** One statement of the gateway's own; the longest reads the catalogs of a large database. */
  provisionStatementMs: 15_000,
  /** Tries of a change that met another one (a deadlock, a row that two updated, a lock not given in time). */
  provisionAttemptsMax: 8,
  /** How long a grant role's sessions may take to end before its drop is left to the next sweep. */
  sessionEndMs: 5000,
  /** Pinned on a grant role: one statement at the resource. A session may lower it. */
  grantStatementMs: 60_000,
  /** Pinned on a grant role: waiting for a lock at the resource. */
  grantLockMs: 10_000,
  /** Pinned on a grant role: an open transaction that says nothing holds back vacuum and migrations. */
  grantIdleTransactionMs: 300_000,
  /** Pinned on a grant role: how soon the resource notices, in the middle of a statement, that nobody waits for it. */
  grantConnectionCheckMs: 1000,
  /** A grant lives no longer than this. */
  grantLifetimeMsMax: 30 * 24 * 3600 * 1000,
} as const;
