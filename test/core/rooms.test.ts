/** The rooms of the house: who imports whom, what passes know of ops, and what a stored type is. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { registry } from '../../core/index.ts';
import { type DType, dtypes, isStored } from '../../core/ir/dtype.ts';
import { bindAll, hole } from '../../core/ir/tensor.ts';
import { asFloat } from '../../core/ops/stored.ts';

const root = path.resolve(import.meta.dirname, '../..');
const rooms = ['core', 'nn', 'models', 'selora', 'train'];
const files = rooms.flatMap((room) =>
  (readdirSync(path.join(root, room), { recursive: true }) as string[])
    .filter((f) => f.endsWith('.ts') && !f.endsWith('.d.ts'))
    .map((f) => path.posix.join(room, f.split(path.sep).join('/'))),
);
const text = (file: string): string => readFileSync(path.join(root, file), 'utf8');
interface Import {
  readonly to: string;
  /** gone when the program runs */
  readonly typeOnly: boolean;
}
/** project files a file imports; examples in comments begin with a star */
const importsOf = new Map(
  files.map((file) => [
    file,
    [...text(file).matchAll(/^(?:(?:import|export) (type )?[^;]*?\bfrom |[^*\n]*\bimport\()'(\.[^']+)'/gm)].map(
      (m): Import => ({ to: path.posix.join(path.posix.dirname(file), m[2]!), typeOnly: m[1] !== undefined }),
    ),
  ]),
);
const wrong = (bad: (from: string, to: string) => boolean): string[] =>
  files.flatMap((from) => importsOf.get(from)!.flatMap(({ to }) => (bad(from, to) ? [`${from} imports ${to}`] : [])));

describe('imports', () => {
  test('all files are found', () => {
    expect(files.length).toBeGreaterThan(200);
    expect(wrong((_from, to) => !files.includes(to) && to.endsWith('.ts'))).toEqual([]);
  });

  test('go one way: train → selora → models → nn → core', () => {
    // what each may import besides itself
    const below: Readonly<Record<string, readonly string[]>> = {
      core: [],
      nn: ['core'],
      models: ['nn', 'core'],
      selora: ['models', 'nn', 'core'],
      train: ['selora', 'models', 'nn', 'core'],
    };
    const room = (file: string) => file.split('/', 1)[0]!;
    expect(wrong((from, to) => room(from) !== room(to) && !below[room(from)]!.includes(room(to)))).toEqual([]);
  });

  test('go one way inside core: ir ← ops ← fused, transforms ← functions ← compile ← backends', () => {
    const below: Readonly<Record<string, readonly string[]>> = {
      ir: [],
      ops: ['ir'],
      fused: ['ir', 'ops'],
      transforms: ['ir', 'ops'],
      functions: ['ir', 'ops', 'fused', 'transforms'],
      'registry.ts': ['ir', 'ops', 'fused', 'transforms', 'functions'],
      compile: ['ir', 'ops', 'fused', 'transforms', 'functions', 'registry.ts'],
      backends: ['ir', 'ops', 'fused', 'transforms', 'functions', 'registry.ts', 'compile'],
      inspect: ['ir', 'ops', 'transforms', 'compile', 'backends'],
      'index.ts': ['ir', 'inspect', 'ops', 'fused', 'transforms', 'functions', 'registry.ts', 'compile', 'backends'],
    };
    const folder = (file: string) => file.split('/')[1]!;
    const core = (from: string, to: string) => from.startsWith('core/') && folder(from) !== folder(to);
    expect(wrong((from, to) => core(from, to) && !below[folder(from)]!.includes(folder(to)))).toEqual([]);
  });

  test('never in a circle, but for the ops, whose derivatives are each other', () => {
    const circles: string[] = [];
    const state = new Map<string, 'open' | 'done'>();
    const visit = (file: string, trail: readonly string[]): void => {
      if (state.get(file) === 'done') return;
      if (state.get(file) === 'open') {
        const circle = trail.slice(trail.indexOf(file));
        if (!circle.every((f) => f.startsWith('core/ops/'))) circles.push(circle.join(' → '));
        return;
      }
      state.set(file, 'open');
      // a command and its parts may know each other's types; the layers below it may not
      for (const { to, typeOnly } of importsOf.get(file) ?? [])
        if (!typeOnly || !file.startsWith('train/')) visit(to, [...trail, file]);
      state.set(file, 'done');
    };
    for (const file of files) visit(file, []);
    expect(circles).toEqual([]);
  });

  test('outside core go to its public names; only what shows or checks the core looks behind them', () => {
    const shows = /^train\/(explain|bench|lab|profile|verify-step|estimate)(\.ts$|\/)|^train\/verify\/step\//;
    const behind = (to: string) => to.startsWith('core/') && to !== 'core/index.ts';
    expect(wrong((from, to) => !from.startsWith('core/') && behind(to) && !shows.test(from))).toEqual([]);
  });
});

test('no transformation and no pass names an op: they read the fields of its record', () => {
  // checkKeys is about drawing random numbers; a record says its own name
  const allowed = new Set([
    'core/compile/checkKeys.ts',
    'core/transforms/once.ts: once',
    'core/transforms/checkpoint.ts: checkpoint',
    'core/transforms/custom.ts: customVjp',
  ]);
  // kinds of scalar steps, accesses and combinations that share a word with an op
  const words = new Set(['iota', 'gather', 'sum', 'max']);
  const named = files
    .filter((f) => /^core\/(transforms|compile)\//.test(f) && !allowed.has(f))
    .flatMap((f) =>
      [...text(f).matchAll(/'(\w+)'/g)]
        .map((m) => m[1]!)
        .filter((w) => registry.has(w) && !words.has(w))
        .map((w) => `${f}: ${w}`),
    )
    .filter((x) => !allowed.has(x));
  expect(named).toEqual([]);
  // those words stand for something else: no pass compares them with an op's name
  const asks = files.filter((f) => /^core\/(transforms|compile)\//.test(f) && /op\.name\s*[!=]==?/.test(text(f)));
  expect(asks).toEqual([]);
});

test('a stored type is widened by the op its row names, for every reader anew, and by nothing else', () => {
  const stored = (Object.keys(dtypes) as DType[]).filter(isStored);
  expect(stored).toEqual(['f16', 'nf4']);
  for (const d of stored) {
    const op = registry.get(dtypes[d].widenedBy)!;
    expect(op).toMatchObject({ kind: 'primitive', repeat: true, takesStored: true });
    const [y] = bindAll(op as never, [hole({ shape: [2, 3], dtype: d })], {});
    expect([y!.shape, y!.dtype]).toEqual([[2, 3], 'f32']);
    expect(asFloat(hole({ shape: [2], dtype: d })).op).toBe(op);
    expect(() => bindAll(registry.get('exp') as never, [hole({ shape: [2], dtype: d })], {})).toThrow(
      `${d} is for storage`,
    );
  }
  const x = hole({ shape: [2], dtype: 'i32' });
  expect(asFloat(x)).toBe(x);
});
