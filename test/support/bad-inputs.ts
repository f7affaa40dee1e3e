/** The optional folder of bad inputs and the rules of its manifest, for the tests that run through it. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'vitest';
import { there } from './there.ts';

export type BadCase = {
  readonly id: string;
  readonly kind: string;
  readonly expect: 'reject' | 'accept' | 'either';
  readonly file?: string;
  /** How the case is made out of a good folder; without it `file` is the case. */
  readonly apply?: object;
  readonly message_names?: { readonly file: string; readonly any_of: readonly string[] };
  readonly limits?: { readonly seconds?: number; readonly extra_rss_mb?: number };
  readonly value?: {
    readonly tensors?: Readonly<
      Record<string, { dtype: string; shape: readonly number[]; data: readonly (number | string)[] }>
    >;
  };
};

/** SELORA_BADINPUTS, or ../shared/badinputs beside the repository, or undefined. */
export function badInputs(): { readonly folder: string; readonly cases: readonly BadCase[] } | undefined {
  const folder = process.env.SELORA_BADINPUTS ?? path.resolve(import.meta.dirname, '../../../shared/badinputs');
  const manifest = path.join(folder, 'manifest.json');
  if (!there('the corpus of bad inputs', existsSync(manifest), `no ${manifest}; SELORA_BADINPUTS names the folder`))
    return undefined;
  return { folder, cases: JSON.parse(readFileSync(manifest, 'utf8')).cases };
}

/**
 * The paths to give to the program, by id, made below a folder by the corpus's own script; cases that are a file as it is
 * in the corpus keep its path. One process makes all: the script takes one case, and is loaded anew for each.
 */
export function materialised(
  { folder, cases }: { readonly folder: string; readonly cases: readonly Pick<BadCase, 'id' | 'file' | 'apply'>[] },
  scratch: string,
): ReadonlyMap<string, string> {
  const ids = cases.filter(({ apply }) => apply !== undefined).map(({ id }) => id);
  const script = pathToFileURL(path.join(folder, 'materialise.mjs')).href;
  const source = `const [scratch, ...ids] = process.argv.slice(1);
    for (const id of ids) {
      process.argv = ['', '', id, scratch + '/' + id];
      await import(${JSON.stringify(script)} + '?' + id);
    }`;
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', source, '--', scratch, ...ids], {
    encoding: 'utf8',
  });
  const made = said.trimEnd().split('\n');
  expect(made).toHaveLength(ids.length);
  return new Map([
    ...cases.flatMap(({ id, file }) => (file === undefined ? [] : [[id, path.join(folder, file)] as const])),
    ...ids.map((id, i) => [id, made[i]!] as const),
  ]);
}

/** The manifest's rule for a refusal: one line that names the file and at least one of the words. */
export function expectRefusal(bad: BadCase, outcome: unknown): void {
  expect(outcome, `${bad.id} was not refused`).toBeInstanceOf(Error);
  const message = (outcome as Error).message;
  expect(message).not.toContain('\n');
  const { file, any_of } = bad.message_names ?? { file: '', any_of: [] };
  expect(message.toLowerCase()).toContain(file.toLowerCase());
  if (any_of.length > 0) {
    expect(
      any_of.some((word) => message.toLowerCase().includes(word)),
      `${message} lacks ${any_of.join('|')}`,
    ).toBe(true);
  }
  expect((outcome as Error).name, 'a named error, not a crash').toBe('FileError');
}
