/** Time as an argument. */
export interface Clock {
  /** Wall clock, epoch milliseconds, UTC. */
  readonly nowMs: () => number;
  /** Monotonic, whole microseconds since the node started. */
  readonly monotonicUs: () => number;
}
