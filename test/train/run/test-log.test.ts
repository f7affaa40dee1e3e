/** Rows of `metrics.jsonl` read in bulk, and the tests of a long run told together: nothing is counted twice or lost. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '../../../models/io/json.ts';
import { moduleHistories } from '../../../train/report/history.ts';
import { plainRow, stepRow, type TestRow } from '../../../train/run/rows.ts';
import { grownIn, testLog, testsIn } from '../../../train/run/test-log.ts';

describe('a row is read at once where nothing is out of the way', () => {
  const numbers = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(0, -0, 1e300));
  const odd = fc.oneof(numbers, fc.constantFrom(null, 'x', true, [], {}));
  const given = (key: string, value: fc.Arbitrary<unknown>) => fc.record({ [key]: value }, { requiredKeys: [] });
  const joined = (...parts: fc.Arbitrary<object>[]) => fc.tuple(...parts).map((list) => Object.assign({}, ...list));
  const one = (number: fc.Arbitrary<unknown>, whole: fc.Arbitrary<unknown>) =>
    joined(
      fc.record({ module: fc.string(), fiOriginal: number, fiExpanded: number, ratio: number }),
      fc.record({ expanded: fc.boolean(), rankAfter: whole }),
      ...['expectedRatio', 'gain', 'sigma', 'caught', 'missed'].map((key) => given(key, number)),
      ...['added', 'cost', 'lost'].map((key) => given(key, whole)),
      given('key', fc.string()),
    );
  const row = (number: fc.Arbitrary<unknown>, whole: fc.Arbitrary<unknown>) =>
    joined(
      fc.record({ step: whole }),
      ...['loss', 'lr', 'seconds', 'memory', 'more'].map((key) => given(key, number)),
      given('totalRank', whole),
      given('tests', fc.array(one(number, whole), { maxLength: 3 })),
    );

  test('as the schema reads it; what the schema refuses or changes is left to it', () => {
    const wholes = fc.nat();
    fc.assert(
      fc.property(row(numbers, wholes), (value) => {
        expect(plainRow(value as Json)).toEqual(stepRow.parse(value));
      }),
    );
    fc.assert(
      fc.property(row(odd, odd), (value) => {
        const plain = plainRow(value as Json);
        if (plain !== undefined) expect(plain).toEqual(stepRow.parse(value));
      }),
    );
    const gained = { module: 'm', expanded: true, rankAfter: 1, carried: [[2, 0.5]] };
    for (const value of [
      { step: 1, tests: [gained] },
      { step: 1, asked: [{ report: 'a', t: 3, part: 1 }] },
    ] as Json[]) {
      expect(plainRow(value)).toBeUndefined();
      expect(stepRow.parse(value)).toEqual(value);
    }
    for (const value of [null, [], 3, { step: 1, validation: { loss: 1 } }, { step: 1, tests: {} }] as Json[])
      expect(plainRow(value)).toBeUndefined();
  });
});

describe('the log of tests', () => {
  const steps = fc.array(fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }), { minLength: 1, maxLength: 60 });

  test('of any length keeps counts, ranks and last scores, in bounded memory; a short one stays as it is', () => {
    fc.assert(
      fc.property(steps, fc.constantFrom(4, 6, 512), (grew, most) => {
        const log = testLog(most);
        const ranks = [1, 2, 3];
        const all = grew.map((modules, i) =>
          modules.map((expanded, m): TestRow => {
            ranks[m] = ranks[m]! + (expanded ? 1 : 0);
            return { module: `m${m}`, fiOriginal: i, fiExpanded: i + m, ratio: m, expanded, rankAfter: ranks[m]! };
          }),
        );
        for (const [i, tests] of all.entries()) log.add(10 * (i + 1), tests);
        const rows = log.rows();
        expect(rows.length).toBeLessThanOrEqual(3 * most);
        if (grew.length <= most)
          expect(rows).toEqual(all.flatMap((tests, i) => tests.map((t) => ({ step: 10 * (i + 1), ...t }))));
        expect(rows.map((r) => r.step)).toEqual(rows.map((r) => r.step).sort((a, b) => a - b));
        const histories = moduleHistories({ modules: [], expansions: rows });
        for (const [m, h] of histories.entries()) {
          const grown = grew.filter((modules) => modules[m]).length;
          expect([h.tested, h.grown, h.start, h.rank]).toEqual([grew.length, grown, m + 1, m + 1 + grown]);
          expect(h.tests.at(-1)).toMatchObject({ step: 10 * grew.length, fiOriginal: grew.length - 1 });
          // each part tells of the steps up to its own
          let seen = 0;
          for (const t of h.tests) {
            const part = grew.slice(seen, seen + testsIn(t));
            seen += part.length;
            expect([t.step, grownIn(t)]).toEqual([10 * seen, part.filter((modules) => modules[m]).length]);
          }
        }
      }),
      { numRuns: 60 },
    );
  });
});
