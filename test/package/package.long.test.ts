/**
 * The package as others get it: built, packed, laid into the node_modules of a folder outside, and there the README's
 * example is type-checked and run by plain Node. No network: the package's own dependencies are links to ours.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const ROOT = path.join(import.meta.dirname, '../..');
const TSC = path.join(ROOT, 'node_modules/typescript-native/bin/tsc');
const MANIFEST = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as {
  readonly dependencies: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
};
const folder = mkdtempSync(path.join(tmpdir(), 'package-'));
const at = (name: string) => path.join(folder, name);
const installed = at('node_modules/selora-ts');

/** Programs as a student would write them, in `programs/`. */
const PROGRAMS = ['logistic', 'xor', 'own-op'];
/** The one TypeScript file that a README holds. */
const exampleOf = (readme: string): string => {
  const [example] = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code);
  expect(example).toContain("from 'selora-ts'");
  return example!;
};

/** Standard output of a program that ends well; what a failing one said becomes the message. */
function run(file: string, args: readonly string[], cwd: string): string {
  try {
    return execFileSync(file, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    const { stdout, stderr } = error as { readonly stdout?: string; readonly stderr?: string };
    throw new Error(`${[file, ...args].join(' ')}\n${stdout ?? ''}${stderr ?? ''}`);
  }
}

beforeAll(() => {
  // `npm run build` without the check of types, which `npm test` has made before
  rmSync(path.join(ROOT, 'dist'), { recursive: true, force: true });
  run(process.execPath, [TSC, '-p', 'tsconfig.package.json', '--noCheck'], ROOT);
  const [{ filename }] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', folder], ROOT));
  mkdirSync(installed, { recursive: true });
  run('tar', ['-xzf', path.join(folder, filename), '--strip-components=1', '-C', installed], folder);
  for (const name of [...Object.keys(MANIFEST.dependencies), '@types/node']) {
    const link = path.join(folder, 'node_modules', name);
    mkdirSync(path.dirname(link), { recursive: true });
    symlinkSync(path.join(ROOT, 'node_modules', name), link);
  }
  writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }');
  // all programs by one run of the compiler, which reads the package's types once
  writeFileSync(path.join(folder, 'example.ts'), exampleOf(readFileSync(path.join(installed, 'README.md'), 'utf8')));
  for (const name of PROGRAMS) cpSync(path.join(import.meta.dirname, 'programs', `${name}.ts`), at(`${name}.ts`));
  const options = ['--strict', '--target', 'es2023', '--module', 'nodenext', '--types', 'node'];
  run(process.execPath, [TSC, ...options, 'example.ts', ...PROGRAMS.map((name) => `${name}.ts`)], folder);
});

afterAll(() => {
  rmSync(path.join(ROOT, 'dist'), { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

test('the tarball holds what the exports name, licence and citation, no sources and no weights', () => {
  for (const target of Object.values(MANIFEST.exports))
    for (const file of typeof target === 'string' ? [target] : Object.values(target))
      expect(existsSync(path.join(installed, file)), file).toBe(true);
  for (const file of ['LICENSE', 'README.md', 'CITATION.cff', 'CHANGELOG.md'])
    expect(existsSync(path.join(installed, file)), file).toBe(true);
  for (const file of ['core', 'models', 'train', 'test'])
    expect(existsSync(path.join(installed, file)), file).toBe(false);
});

/** What each program printed: one after the other in one process of plain Node, a line each. */
const printed = (() => {
  let lines: ReadonlyMap<string, unknown> | undefined;
  return (name: string): unknown => {
    const names = ['example', ...PROGRAMS];
    const code = `for (const name of ${JSON.stringify(names)}) await import('./' + name + '.js');`;
    lines ??= new Map(
      run(process.execPath, ['--input-type=module', '-e', code], folder)
        .trimEnd()
        .split('\n')
        .map((line, i) => [names[i]!, JSON.parse(line)]),
    );
    return lines.get(name);
  };
})();

test("the README's example type-checks and runs outside the repository", () => {
  const numbers = printed('example') as number[];
  // by hand: ∂ℓ/∂B of a sample = (x·A)·2/3·(W·x); its square, averaged over the samples (1, 0) and (0, 1)
  const expected = [2 / 9, 8 / 9, 10 / 9];
  expect(numbers).toHaveLength(3);
  for (const [i, value] of numbers.entries()) expect(Math.abs(value - expected[i])).toBeLessThan(1e-6);
});

describe('programs of students, type-checked and run outside the repository', () => {
  test('logistic regression separates two clouds', () => {
    const { accuracy, w } = printed('logistic') as { accuracy: number; w: readonly number[] };
    // the clouds stand at ∓(1.5, 1.5) with deviation 1: the best line errs in Φ(−1.5·√2) = 1.7 % of the points
    expect(accuracy).toBeGreaterThan(0.95);
    expect(w.every((v) => v > 0.5)).toBe(true);
  });
  test('a small network learns exclusive or', () => {
    const { losses, answers } = printed('xor') as { losses: readonly number[]; answers: readonly number[] };
    expect(answers).toEqual([0, 1, 1, 0]);
    expect(losses.at(-1)!).toBeLessThan(0.1 * losses[0]!);
  });
  test('an op of one’s own, its derivative for each sample: that of the plain formula', () => {
    const { own, plain } = printed('own-op') as { own: readonly number[]; plain: readonly number[] };
    expect(own).toHaveLength(4);
    for (const [i, v] of plain.entries()) expect(Math.abs(own[i]! - v)).toBeLessThan(1e-6);
  });
});

test('plain Node imports every entry point', () => {
  const names = Object.keys(MANIFEST.exports).filter((name) => name !== './package.json');
  const code = `
    const out = {};
    for (const name of ${JSON.stringify(names)}) out[name] = Object.keys(await import(name.replace('.', 'selora-ts')));
    console.log(JSON.stringify(out));`;
  const found = JSON.parse(run(process.execPath, ['--input-type=module', '-e', code], folder)) as Record<
    string,
    string[]
  >;
  expect(found['.']).toEqual(expect.arrayContaining(['grad', 'vmap', 'compile', 'openBackend']));
  expect(found['./nn']).toEqual(expect.arrayContaining(['linear', 'conv2d', 'init']));
  expect(found['./models']).toEqual(expect.arrayContaining(['unet', 'openBase', 'readAdapter', 'createSampler']));
  expect(found['./selora']).toEqual(expect.arrayContaining(['attach', 'expandAdapter', 'decide']));
});
