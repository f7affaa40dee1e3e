/** Commands as bundles: what runs is the source as it is, whatever becomes of the cache. A small project of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { longTest } from '../../support/long.ts';
import { scratch } from '../../support/scratch.ts';

const root = path.resolve(import.meta.dirname, '../../..');
let project: string;
let number = 0;
const at = (...parts: string[]): string => path.join(project, ...parts);
const put = (file: string, text: string) => {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(at(file), text);
};
const cache = () => at('node_modules/.cache/selora-ts');
/** The bundles of the command `hello`. */
const bundles = () => readdirSync(cache()).filter((name) => name.startsWith('train+hello-'));

beforeEach(() => {
  project = path.join(scratch, `project ${number++}`);
  for (const file of ['start.mjs', 'bundle.mjs', 'esbuild.json']) {
    mkdirSync(at('train/cli'), { recursive: true });
    copyFileSync(path.join(root, 'train/cli', file), at('train/cli', file));
  }
  copyFileSync(path.join(root, 'tsconfig.json'), at('tsconfig.json'));
  put('package.json', '{ "type": "module" }');
  mkdirSync(at('node_modules'));
  for (const name of ['esbuild', 'tsx', 'zod'])
    symlinkSync(path.join(root, 'node_modules', name), at('node_modules', name));
  put('core/word.ts', `export const word: string = 'hello';\n`);
  put(
    'train/hello.ts',
    `import { word } from '../core/word.ts';\nprocess.stdout.write([word, ...process.argv.slice(2)].join(' '));\n`,
  );
});

type Outcome = {
  readonly code: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly err: string;
};
const ended = (child: ChildProcess): Promise<Outcome> => {
  let [out, err] = ['', ''];
  child.stdout?.on('data', (text) => {
    out += text;
  });
  child.stderr?.on('data', (text) => {
    err += text;
  });
  return new Promise((done) => child.on('close', (code, signal) => done({ code, signal, out, err })));
};
const start = (...args: string[]): ChildProcess =>
  spawn(process.execPath, ['train/cli/start.mjs', 'train/hello.ts', ...args], { cwd: project });
const run = (...args: string[]): Promise<Outcome> => ended(start(...args));
const fine = (out: string): Outcome => ({ code: 0, signal: null, out, err: '' });

it('is made once, and again when a source has changed, be it of the same size and time', async () => {
  expect(await run('a', '--b')).toEqual(fine('hello a --b'));
  const [made] = bundles();
  const written = statSync(path.join(cache(), made!, 'hello.mjs')).mtimeMs;
  expect(await run()).toEqual(fine('hello'));
  expect(statSync(path.join(cache(), made!, 'hello.mjs')).mtimeMs).toBe(written);
  const { atime, mtime } = statSync(at('core/word.ts'));
  put('core/word.ts', `export const word: string = 'world';\n`);
  utimesSync(at('core/word.ts'), atime, mtime);
  expect(await run()).toEqual(fine('world'));
  expect(bundles()).toHaveLength(2);
});

it('is the same for sources that were only copied', async () => {
  expect(await run()).toEqual(fine('hello'));
  const [before] = bundles();
  const text = readFileSync(at('core/word.ts'), 'utf8');
  rmSync(at('core/word.ts'));
  put('core/word.ts', text);
  expect(await run()).toEqual(fine('hello'));
  expect(bundles()).toEqual([before]);
});

it('a source that does not compile is told in one line, and others still run', async () => {
  put('train/hello.ts', 'const a = 1;\nconst b = ;\n');
  put('train/other.ts', `process.stdout.write('other');\n`);
  expect(await run()).toEqual({ code: 1, signal: null, out: '', err: 'train/hello.ts:2:11: Unexpected ";"\n' });
  put('train/hello.ts', `import '../core/gone.ts';\n`);
  expect((await run()).err).toBe('train/hello.ts:1:8: Could not resolve "../core/gone.ts"\n');
  const other = spawn(process.execPath, ['train/cli/start.mjs', 'train/other.ts'], { cwd: project });
  expect(await ended(other)).toEqual(fine('other'));
  expect(bundles()).toEqual([]);
});

it('modules find themselves, packages and parts imported late where their sources are', async () => {
  put('core/place.ts', 'export const place = [import.meta.url, import.meta.filename, import.meta.dirname];\n');
  put(
    'train/hello.ts',
    `const { place } = await import('../core/place.ts');
    const { z } = await import('zod');
    const packages = import.meta.resolve('zod');
    console.log(JSON.stringify({ place, packages, own: import.meta.url, argv: process.argv[1], zod: typeof z }));\n`,
  );
  const { out, err } = await run();
  expect(err).toBe('');
  const { place, packages, own, argv, zod } = JSON.parse(out);
  expect(place).toEqual([`file://${encodeURI(at('core/place.ts'))}`, at('core/place.ts'), at('core')]);
  expect(packages).toMatch(/node_modules\/zod\/index\.js$/);
  expect([own, argv, zod]).toEqual([`file://${encodeURI(at('train/hello.ts'))}`, at('train/hello.ts'), 'object']);
  // the late part is a file of its own
  expect(readdirSync(path.join(cache(), bundles()[0]!)).some((file) => /^place-.*\.mjs$/.test(file))).toBe(true);
});

it('a fault names lines of the sources', async () => {
  put(
    'core/word.ts',
    `interface Unused {\n  a: 1;\n}\nexport const word = (): string => {\n  throw new Error('no');\n};\n`,
  );
  put('train/hello.ts', `import { word } from '../core/word.ts';\n\nword();\n`);
  const { code, err } = await run();
  expect(err).toContain(`${at('core/word.ts')}:5:`);
  expect(err).toContain(`${at('train/hello.ts')}:3:`);
  expect(code).toBe(1);
});

it('exit codes and signals are the command’s', async () => {
  put('train/hello.ts', `process.exitCode = Number(process.argv[2]);\n`);
  expect((await run('7')).code).toBe(7);
  put(
    'train/hello.ts',
    `process.on('SIGINT', () => process.exit(130));\nsetInterval(() => 0, 9);\nprocess.stdout.write('.');\n`,
  );
  for (const [signal, end] of [
    ['SIGINT', { code: 130, signal: null }],
    ['SIGTERM', { code: null, signal: 'SIGTERM' }],
  ] as const) {
    const child = start();
    child.stdout!.once('data', () => child.kill(signal));
    expect(await ended(child)).toMatchObject(end);
  }
});

it('several starts at once leave one bundle and nothing half made', async () => {
  expect(await Promise.all([run('1'), run('2'), run('3')])).toEqual([
    fine('hello 1'),
    fine('hello 2'),
    fine('hello 3'),
  ]);
  expect(readdirSync(cache()).sort()).toEqual(['sources.json', ...bundles()]);
  expect(bundles()).toHaveLength(1);
});

longTest('old ones go, but for those that a process still runs', async () => {
  const waits = (n: number) => `process.stdout.write('${n}');\nif (process.argv[2]) setInterval(() => 0, 9);\n`;
  put('train/hello.ts', waits(0));
  const child = start('and wait');
  await new Promise((done) => child.stdout!.once('data', done));
  const [used] = bundles();
  // of another machine, where a process may run it or not
  mkdirSync(path.join(cache(), `train+hello-${'0'.repeat(24)}`, 'users'), { recursive: true });
  writeFileSync(path.join(cache(), `train+hello-${'0'.repeat(24)}`, 'users', `not${hostname()} 1`), '');
  // left half made long ago
  mkdirSync(path.join(cache(), `.train+hello-${'1'.repeat(24)}.host.1`));
  const seen = new Set<string>();
  for (const n of [1, 2, 3]) {
    put('train/hello.ts', waits(n));
    expect(await run()).toEqual(fine(String(n)));
    for (const name of bundles()) seen.add(name);
  }
  expect(seen.size).toBe(5);
  expect(bundles()).toHaveLength(4);
  expect(bundles()).toContain(used);
  expect(bundles()).toContain(`train+hello-${'0'.repeat(24)}`);
  expect(readdirSync(cache()).filter((name) => name.startsWith('.'))).toEqual([]);
  child.kill();
  await ended(child);
  put('train/hello.ts', waits(4));
  await run();
  expect(bundles()).not.toContain(used);
});

longTest('where none can be kept the command runs all the same', async () => {
  put('node_modules/.cache', 'not a folder');
  expect(await run('a')).toEqual(fine('hello a'));
  // and in a folder that takes folders, but no files
  rmSync(at('node_modules/.cache'));
  const full = `const fs = require('node:fs'); const write = fs.writeFileSync;
    fs.writeFileSync = (file, ...rest) => {
      if (/\\.mjs$/.test(String(file))) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
      return write(file, ...rest);
    };
    require('node:module').syncBuiltinESMExports();`;
  put('full.cjs', full);
  const child = spawn(process.execPath, ['--require', './full.cjs', 'train/cli/start.mjs', 'train/hello.ts', 'b'], {
    cwd: project,
  });
  expect(await ended(child)).toEqual(fine('hello b'));
  expect(readdirSync(cache()).filter((name) => name !== 'sources.json')).toEqual([]);
});
