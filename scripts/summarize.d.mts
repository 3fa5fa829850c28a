export declare function summarize(
  exitCode: number | null,
  report: string | null,
): { readonly passed: number; readonly failed: number };
