import type { CallId } from "./ids.ts";

/** Which tool call led to a command, and how strongly that is known (DESIGN.md, "Cause"). */
export interface Cause {
  readonly strength: "bound" | "exclusive" | "declared" | "ambiguous" | "none";
  /** The calls in flight when the command arrived: one for `exclusive`, all for `ambiguous`, none for `none`. */
  readonly calls: readonly CallId[];
}
