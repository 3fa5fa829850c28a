import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { Names } from "#protocols/postgres/names.ts";
import type { NameChange } from "#protocols/postgres/names.ts";

/** PostgreSQL as far as names go: a message after a failure is skipped until the group ends. */
type Step = { readonly name: string; readonly value: number | undefined; readonly fails: boolean };
const step: fc.Arbitrary<Step> = fc.record({
  name: fc.constantFrom("", "a", "b"),
  value: fc.option(fc.integer(), { nil: undefined }),
  fails: fc.boolean(),
});

describe("what a name means", () => {
  test("is what it means upstream once every group has been answered", () => {
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 6 }), { maxLength: 6 }), (groups) => {
        const names = new Names<number>();
        const upstream = new Map<string, number>();
        for (const [group, steps] of groups.entries()) {
          const changes: { readonly change: NameChange; readonly step: Step }[] = [];
          for (const one of steps) {
            changes.push({ change: names.change(one.name, one.value, group), step: one });
          }
          const failure = steps.findIndex((one) => one.fails);
          const done = failure === -1 ? steps : steps.slice(0, failure);
          for (const one of done) {
            if (one.value === undefined) {
              upstream.delete(one.name);
            } else {
              upstream.set(one.name, one.value);
            }
          }
          for (const { change } of changes.slice(0, done.length)) {
            change.settle();
          }
          for (const { change } of changes.slice(done.length).toReversed()) {
            change.undo();
          }
          for (const name of ["", "a", "b"]) {
            expect(names.get(name)).toBe(upstream.get(name));
            expect(names.isSettled(name, group + 1)).toBe(true);
          }
        }
      }),
    );
  });

  test("is uncertain for a later group until the earlier one has been answered, and for no other name", () => {
    const names = new Names<number>();
    const change = names.change("a", 1, 7);
    expect(names.isSettled("a", 7)).toBe(true);
    expect(names.isSettled("a", 8)).toBe(false);
    expect(names.isSettled("b", 8)).toBe(true);
    change.undo();
    expect(names.isSettled("a", 8)).toBe(true);
    expect(names.get("a")).toBeUndefined();
  });
});
