import { describe, expect, test } from "vitest";

import { ReleaseQueue } from "#gateway/release-queue.ts";

describe("releases", () => {
  test("happen in the order of arrival, whichever is ready first", async () => {
    const queue = new ReleaseQueue(1000, () => {});
    const released: number[] = [];
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    for (const [index, gate] of gates.entries()) {
      queue.add(1, async () => {
        await gate.promise;
        released.push(index);
      });
    }
    for (const gate of gates.toReversed()) {
      gate.resolve();
      await Promise.resolve();
    }
    await queue.drained();
    expect(released).toEqual([0, 1, 2]);
  });

  test("nothing is released after one that failed, and the failure is told at once", async () => {
    const failures: unknown[] = [];
    const queue = new ReleaseQueue(1000, (error) => failures.push(error));
    const released: number[] = [];
    const broken = new Error("not durable");
    queue.add(1, async () => {
      released.push(0);
    });
    queue.add(1, async () => {
      throw broken;
    });
    queue.add(1, async () => {
      released.push(2);
    });
    await expect(queue.drained()).rejects.toBe(broken);
    await expect(queue.room()).rejects.toBe(broken);
    expect(released).toEqual([0]);
    expect(failures).toEqual([broken]);
  });

  test("the producer waits while more than the bound is held", async () => {
    const queue = new ReleaseQueue(10, () => {});
    const gate = Promise.withResolvers<void>();
    queue.add(11, () => gate.promise);
    let hasRoom = false;
    const room = queue.room().then(() => {
      hasRoom = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(hasRoom).toBe(false);
    gate.resolve();
    await room;
    expect(hasRoom).toBe(true);
  });
});
