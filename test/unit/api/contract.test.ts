import { describe, expect, test } from "vitest";
import { routes } from "#api/contract.ts";

describe("the routes", () => {
  test.each(Object.entries(routes))("%s says what it changes, and how that is recorded", (_, route) => {
    expect(route.method === "GET" || route.changes).toBe(true);
    expect("entry" in route).toBe(route.changes);
  });

  test("are each there once", () => {
    const names = Object.values(routes).map((route) => `${route.method} ${route.path}`);
    expect(new Set(names).size).toBe(names.length);
  });

  test("take exactly the parameters that their paths name", () => {
    for (const route of Object.values(routes)) {
      const named = Array.from(route.path.matchAll(/:([a-z]+)/g), (match) => match[1]);
      expect(Object.keys(route.params.shape)).toEqual(named);
    }
  });
});
