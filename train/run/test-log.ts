/** The expansion tests of a run, in bounded memory: of a long run neighbouring tests of a module are told as one. */
import type { ExpansionRow } from './record.ts';
import type { TestRow } from './rows.ts';

/** Steps with a test that are kept apart at most; more cannot be seen in any chart. */
const MOST = 512;

/** How many tests a row stands for, and in how many of them the module grew. */
export const testsIn = (row: ExpansionRow): number => row.tests ?? 1;
export const grownIn = (row: ExpansionRow): number => row.grown ?? (row.expanded ? 1 : 0);

/** Two neighbouring rows of a module as one: the scores and the rank of the later one, the ranks both added and lost. */
const joined = (a: ExpansionRow, b: ExpansionRow): ExpansionRow => {
  const counts = { expanded: a.expanded || b.expanded, tests: testsIn(a) + testsIn(b), grown: grownIn(a) + grownIn(b) };
  const added = a.added === undefined ? {} : { added: a.added + (b.added ?? 0) };
  const lost = a.lost === undefined && b.lost === undefined ? {} : { lost: (a.lost ?? 0) + (b.lost ?? 0) };
  return { ...b, ...counts, ...added, ...lost };
};

/** The rows of neighbouring tests by module. */
type Part = Map<string, ExpansionRow>;
const addTo = (part: Part, row: ExpansionRow): Part => {
  const before = part.get(row.module);
  return part.set(row.module, before === undefined ? row : joined(before, row));
};

/**
 * The rows of neighbouring tests as one row per module, in the order of the modules.
 * @example joinTests(log.filter((e) => e.step <= 40)) // what came of the first tests
 */
export const joinTests = (rows: Iterable<ExpansionRow>): readonly ExpansionRow[] => {
  const part: Part = new Map();
  for (const row of rows) addTo(part, row);
  return [...part.values()];
};

export interface TestLog {
  add(step: number, tests: readonly TestRow[]): void;
  rows(): ExpansionRow[];
}

/** An empty log. Keeps every test while they are few; where they get too many, each two neighbours become one. */
export function testLog(most = MOST): TestLog {
  // One text per module, not one per test.
  const texts = new Map<string, string>();
  const interned = (text: string): string => {
    const known = texts.get(text);
    if (known === undefined) texts.set(text, text);
    return known ?? text;
  };
  let parts: Part[] = [];
  /** steps in each part, and in the last one */
  let [size, last] = [1, 1];
  const halve = () => {
    const halved: Part[] = [];
    for (let i = 0; i < parts.length; i += 2) {
      const part = parts[i]!;
      for (const row of parts[i + 1]?.values() ?? []) addTo(part, row);
      halved.push(part);
    }
    if (parts.length % 2 === 0) last = 2 * size;
    parts = halved;
    size *= 2;
  };
  return {
    add(step, tests) {
      if (last === size && parts.length === most) halve();
      if (last === size || parts.length === 0) {
        parts.push(new Map());
        last = 0;
      }
      last++;
      const part = parts.at(-1)!;
      for (const test of tests) addTo(part, { step, ...test, module: interned(test.module) });
    },
    rows: () => parts.flatMap((part) => [...part.values()]),
  };
}
