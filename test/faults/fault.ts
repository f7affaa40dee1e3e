/** What a planted fault is: one change of the source, why it is wrong, and the tests that must notice it. */

/** Tests of one file by (part of) their names. */
export interface Check {
  readonly file: string;
  /** a regular expression on `suite test` */
  readonly only: string;
}
export interface Fault {
  readonly file: string;
  /** stands exactly once in the file */
  readonly find: string;
  readonly replace: string;
  readonly why: string;
  readonly checks: readonly Check[];
}

const escaped = (names: readonly string[]): string =>
  names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|');

/** tests of the battery on these ops and functions */
export const battery = (...ops: readonly string[]): Check => ({
  file: 'test/core/battery.test.ts',
  only: `^(${escaped(ops)}) `,
});
/** ops, or shapes at the edges of tiles, against the exact result within the bound of an error analysis */
const bounded =
  (backend: string) =>
  (...names: readonly string[]): Check => ({
    file: 'test/core/backends.test.ts',
    only: `^${backend} (${escaped(names)}) and its gradient`,
  });
export const wasm = bounded('wasm, 1 thread');
export const webgpu = bounded('webgpu');
/** inputs at the edges, on one backend */
export const edges = (backend: string, ...names: readonly string[]): Check => ({
  file: 'test/core/edges.test.ts',
  only: `^${backend} .*(${escaped(names)})`,
});
/** tests of a file in test/core by part of their names */
export const named = (file: string, only = '.'): Check => ({ file: `test/core/${file}.test.ts`, only });

/** Faults of one file: [what it says, what it says then, why that is wrong, …the tests that must notice]. */
export const faultsOf = (
  file: string,
  ...list: readonly (readonly [find: string, replace: string, why: string, ...checks: Check[]])[]
): Fault[] => list.map(([find, replace, why, ...checks]) => ({ file: `core/${file}`, find, replace, why, checks }));
