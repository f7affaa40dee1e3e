/** The list of planted faults fits the sources: `npm run faults` plants them. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { faults } from './index.ts';

/** files whose tests are named by tables elsewhere; the command asks whether those are there */
const BY_TABLES = ['battery', 'edges', 'backends'].map((name) => `test/core/${name}.test.ts`);
const root = dirname(dirname(import.meta.dirname));
const texts = new Map<string, string>();
const textOf = (file: string): string => {
  if (!texts.has(file)) texts.set(file, readFileSync(join(root, file), 'utf8'));
  return texts.get(file)!;
};

test('every planted fault changes one place of a source that is there, and has tests that must notice it', () => {
  expect(faults.length).toBeGreaterThanOrEqual(100);
  for (const { file, find, replace, why, checks } of faults) {
    const about = `${file}: ${why}`;
    expect(textOf(file).split(find).length - 1, `${about}: '${find}' must stand once`).toBe(1);
    expect(replace, about).not.toBe(find);
    expect(checks.length, about).toBeGreaterThan(0);
    for (const { file: test, only } of checks) {
      expect(existsSync(join(root, test)), `${about}: ${test}`).toBe(true);
      if (!BY_TABLES.includes(test)) expect(textOf(test), about).toMatch(new RegExp(only.replace('^', '')));
    }
  }
  const names = faults.map(({ file, why }) => `${file}: ${why}`);
  expect(new Set(names).size).toBe(names.length);
});
