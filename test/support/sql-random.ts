/**
 * Random SELECTs over `sql-world.ts`, made so that names collide: aliases, outputs, common tables and hidden columns share a few names.
 * Most names are ones that are visible where they stand, so that many statements mean something.
 */

/** Something in FROM: its name and its columns, as the generator believes them to be. */
interface Item {
  readonly name: string | null;
  readonly columns: readonly string[];
}

interface Query {
  readonly text: string;
  readonly columns: readonly string[];
}

const tables: Readonly<Record<string, readonly string[]>> = {
  customers: ["id", "name", "email", "ssn", "card", "country", "created_at"],
  invoices: ["id", "customer_id", "amount", "status", "tags", "data", "issued"],
  support_notes: ["id", "customer_id", "body"],
  parents: ["id", "name", "ssn"],
};

const aliases = ["a", "b", "c", "d", "customers", "invoices", "parents", "x"];
const outputNames = ["id", "ssn", "name", "secret", "secret_note", "x"];
const depthMax = 3;

/** A small generator of numbers (mulberry32), so that one number makes one statement. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

class Maker {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  #chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #pick<T>(from: readonly [T, ...(readonly T[])] | readonly T[], otherwise: T): T {
    return from[Math.floor(this.#random() * from.length)] ?? otherwise;
  }

  /** A reference to something visible, innermost most likely; sometimes to anything at all. */
  #reference(levels: readonly (readonly Item[])[]): string {
    if (this.#chance(0.04)) {
      return this.#chance(0.5)
        ? this.#pick(outputNames, "id")
        : `${this.#pick(aliases, "a")}.${this.#pick(outputNames, "id")}`;
    }
    const level = this.#chance(0.75) ? (levels[0] ?? []) : this.#pick(levels, []);
    const item = this.#pick(level, { name: null, columns: ["id"] });
    const column = this.#pick(item.columns, "id");
    if (item.name === null || this.#chance(0.45)) {
      return column;
    }
    return this.#chance(0.12) ? item.name : `${item.name}.${column}`;
  }

  #expression(levels: readonly (readonly Item[])[], depth: number): string {
    const inner = (): string => this.#expression(levels, depth + 1);
    if (depth >= depthMax || this.#chance(0.5)) {
      return this.#chance(0.1) ? this.#pick(["1", "'k'", "null::text"], "1") : this.#reference(levels);
    }
    const make = this.#pick<() => string>(
      [
        () => `coalesce((${inner()})::text, (${inner()})::text)`,
        () => `md5((${inner()})::text)`,
        () => `length((${inner()})::text)`,
        () => `((${inner()})::text = (${inner()})::text)`,
        () => `case when (${inner()}) is null then 'n' else (${inner()})::text end`,
        () => `row_to_json(row(${inner()}, ${inner()}))::text`,
        () => `exists(${this.query(levels, depth + 1).text})`,
        () => `(select count(*) from (${this.query(levels, depth + 1).text}) s)`,
        () => `array(select md5(s::text) from (${this.query(levels, depth + 1).text}) s order by 1)`,
      ],
      () => "1",
    );
    return make();
  }

  #table(common: ReadonlyMap<string, readonly string[]>): { readonly text: string; readonly item: Item } {
    const name = this.#pick([...Object.keys(tables), ...common.keys()], "customers");
    const columns = common.get(name) ?? tables[name] ?? [];
    const qualified = !common.has(name) && this.#chance(0.3) ? `public.${name}` : name;
    if (this.#chance(0.25)) {
      return {
        text: qualified,
        item: { name, columns: common.has(name) && qualified !== name ? (tables[name] ?? []) : columns },
      };
    }
    const alias = this.#pick(aliases, "a");
    if (this.#chance(0.15)) {
      const renamed = [...new Set([this.#pick(outputNames, "x"), this.#pick(outputNames, "id")])];
      return {
        text: `${qualified} as ${alias}(${renamed.join(", ")})`,
        item: { name: alias, columns: [...renamed, ...columns.slice(renamed.length)] },
      };
    }
    return { text: `${qualified} as ${alias}`, item: { name: alias, columns } };
  }

  #item(
    levels: readonly (readonly Item[])[],
    before: readonly Item[],
    common: ReadonlyMap<string, readonly string[]>,
    depth: number,
  ): { readonly text: string; readonly items: readonly Item[] } {
    if (depth < depthMax && this.#chance(0.25)) {
      const lateral = this.#chance(0.5);
      const inner = this.query(lateral || this.#chance(0.3) ? [before, ...levels] : levels, depth + 1, common);
      const alias = this.#pick(aliases, "a");
      return {
        text: `${lateral ? "lateral " : ""}(${inner.text}) as ${alias}`,
        items: [{ name: alias, columns: inner.columns }],
      };
    }
    if (depth < depthMax && this.#chance(0.3)) {
      const left = this.#item(levels, before, common, depth + 1);
      const right = this.#item(levels, [...before, ...left.items], common, depth + 1);
      const lefts = left.items.flatMap((item) => item.columns);
      const shared = right.items.flatMap((item) => item.columns).filter((column) => lefts.includes(column));
      const kind = this.#pick(["join", "left join", "full join"], "join");
      const items = [...left.items, ...right.items];
      if (this.#chance(0.15)) {
        return { text: `${left.text} natural join ${right.text}`, items };
      }
      if (shared.length > 0 && this.#chance(0.4)) {
        return { text: `${left.text} ${kind} ${right.text} using (${this.#pick(shared, "id")})`, items };
      }
      const on = kind === "full join" ? "true" : `(${this.#expression([items, ...levels], depth + 1)}) is not null`;
      return { text: `${left.text} ${kind} ${right.text} on ${on}`, items };
    }
    const { text, item } = this.#table(common);
    return { text, items: [item] };
  }

  query(
    levels: readonly (readonly Item[])[],
    depth: number,
    outer: ReadonlyMap<string, readonly string[]> = new Map(),
  ): Query {
    const common = new Map(outer);
    const prefix: string[] = [];
    if (this.#chance(0.2)) {
      const name = this.#pick(["t", "u", "customers", "invoices"], "t");
      const inner = this.query(levels, depth + 1, common);
      prefix.push(`with ${name} as (${inner.text})`);
      common.set(name, inner.columns);
    }
    const from: string[] = [];
    const items: Item[] = [];
    for (let i = 0; i < (this.#chance(0.3) ? 2 : 1); i++) {
      const made = this.#item(levels, items, common, depth);
      from.push(made.text);
      items.push(...made.items);
    }
    const here = [items, ...levels];
    const outputs: string[] = [];
    const columns: string[] = [];
    for (let i = 0; i < 1 + Math.floor(this.#random() * 3); i++) {
      const item = this.#pick(items, { name: null, columns: [] });
      if (this.#chance(0.2) && item.name !== null) {
        outputs.push(`${item.name}.*`);
        columns.push(...item.columns);
      } else {
        const name = this.#pick(outputNames, "x");
        outputs.push(`${this.#expression(here, depth)} as ${name}`);
        columns.push(name);
      }
    }
    const where = this.#chance(0.4) ? ` where (${this.#expression(here, depth)}) is not null` : "";
    const order = this.#chance(0.2) ? ` order by ${this.#pick(columns, "1")}` : "";
    return {
      text: `${[...prefix, `select ${outputs.join(", ")}`].join(" ")} from ${from.join(", ")}${where}${order}`,
      columns,
    };
  }
}

/** One statement for each number. */
export function randomQuery(seed: number): string {
  return new Maker(seed).query([], 0).text;
}
