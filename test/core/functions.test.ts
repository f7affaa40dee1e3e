/**
 * Functions written in ops against jax (golden/functions.json: values and gradients in float64), on the reference in f64
 * and, all cases as one program, on the fast backends in f32. What jax does not say is in `functions-properties`.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import * as core from '../../core/index.ts';
import { type Backend, evaluate, grad, mul, openBackend, read, sum, type Tensor, tensor } from '../../core/index.ts';
import { type DType, isFloat } from '../../core/ir/dtype.ts';
import { numbers } from '../support/gradcheck.ts';
import { longRows } from '../support/long.ts';

type Packed = readonly [dtype: DType, shape: readonly number[], values: readonly (number | 'nan' | 'inf' | '-inf')[]];
interface Case extends Readonly<Record<string, unknown>> {
  readonly in: readonly Packed[];
  readonly y: readonly Packed[];
  /** weights of the sum of the results whose gradient `g` is */
  readonly w: readonly Packed[];
  readonly g?: readonly Packed[];
}
const cases = JSON.parse(readFileSync(path.join(import.meta.dirname, '../golden/functions.json'), 'utf8')) as Readonly<
  Record<string, readonly Case[]>
>;

const number = (v: number | string): number =>
  typeof v === 'number'
    ? v
    : v === 'nan'
      ? Number.NaN
      : v === 'inf'
        ? Number.POSITIVE_INFINITY
        : Number.NEGATIVE_INFINITY;
const unpack = ([dtype, shape, values]: Packed, float: 'f32' | 'f64'): Tensor =>
  tensor(values.map(number), shape, isFloat(dtype) ? float : dtype);

const zero = { gradient: 'zero' } as const;
type Call = (x: readonly Tensor[], a: never) => Tensor | readonly Tensor[];
const f = core as unknown as Readonly<Record<string, (...x: unknown[]) => Tensor>>;
/** how a case is called here, where that is more than the function on its operands */
const calls: Readonly<Record<string, Call>> = {
  leakyRelu: ([x]) => core.leakyRelu(x!, 0.1),
  gelu: ([x], { form }: { form: 'erf' | 'tanh' }) => core.gelu(x!, form),
  ...Object.fromEntries(
    ['ceil', 'round', 'trunc', 'sign'].map((name): [string, Call] => [name, ([x]) => f[name]!(x, zero)]),
  ),
  ...Object.fromEntries(
    [
      'min',
      'prod',
      'variance',
      'std',
      'norm',
      'logsumexp',
      'logSoftmax',
      'argmax',
      'argmin',
      'cumsum',
      'cumprod',
      'any',
      'all',
      'sort',
      'argsort',
    ].map((name): [string, Call] => [name, ([x], { axis }: { axis: number }) => f[name]!(x, axis)]),
  ),
  topK: ([x]) => core.topK(x!, 2),
  remainder: ([a, b]) =>
    isFloat(a!.dtype) ? core.remainder(core.stopGradient(a!), core.stopGradient(b!)) : core.remainder(a!, b!),
  einsum: (x, { spec }: { spec: string }) => core.einsum(spec, ...x),
  tril: ([x], { k }: { k: number }) => core.tril(x!, k),
  triu: ([x], { k }: { k: number }) => core.triu(x!, k),
  oneHot: ([x]) => core.oneHot(x!, 4),
  split: ([x]) => core.split(x!, [1, 3], 1),
  tile: ([x]) => core.tile(x!, [2, 1, 3]),
  repeat: ([x]) => core.repeat(x!, 3, 1),
  roll: ([x]) => core.roll(x!, -2, 1),
  arange: () => core.arange(2, 8, 1.5),
  linspace: () => core.linspace(-1, 1, 7),
  eye: () => core.eye(3, { columns: 4, k: 1 }),
  dynamicSlice: ([x], { start }: { start: number }) => core.dynamicSlice(x!, [tensor(start, [], 'i32'), 1], [2, 2]),
  dynamicUpdateSlice: ([x, p], { start }: { start: number }) =>
    core.dynamicUpdateSlice(x!, p!, [tensor(start, [], 'i32'), 1]),
  maxPool: ([x], a: core.Windows) => core.maxPool(x!, a),
  averagePool: ([x], a: core.Windows) => core.averagePool(x!, a),
  conv1d: ([x, w], a: core.Conv1dOptions) => core.conv1d(x!, w!, a),
  conv: ([x, w], a: core.ConvOptions) => core.conv(x!, w!, a),
  triangularSolve: ([a, b], o: core.TriangularOptions) => core.triangularSolve(a!, b!, o),
};

/** Results and gradients of a case, beside what jax says they are. */
function computed(name: string, c: Case, float: 'f32' | 'f64'): { readonly got: Tensor[]; readonly want: Packed[] } {
  const call: Call = calls[name] ?? ((x) => f[name]!(...x));
  const run = (x: readonly Tensor[]): readonly Tensor[] => {
    const y = call(x, c as never);
    return Array.isArray(y) ? y : [y as Tensor];
  };
  const x = c.in.map((p) => unpack(p, float));
  const got = [...run(x)];
  if (!c.g) return { got, want: [...c.y] };
  const at = x.flatMap((t, i) => (isFloat(t.dtype) ? [i] : []));
  const loss = (xs: readonly Tensor[]): Tensor => {
    const all = x.map((t, i) => (at.includes(i) ? xs[at.indexOf(i)]! : t));
    const terms = run(all).flatMap((y, i) => (isFloat(y.dtype) ? [sum(mul(y, unpack(c.w[i]!, float)))] : []));
    return terms.reduce((p, q) => core.add(p, q));
  };
  // jax differentiates remainder by its first argument; here it is a step function of whole quotients
  const differentiable = name !== 'remainder';
  const g = differentiable ? grad(loss)(at.map((i) => x[i]!)) : [];
  return { got: [...got, ...g], want: [...c.y, ...(differentiable ? c.g : [])] };
}

function expectNear(what: string, got: ArrayLike<number>, [, , want]: Packed, tolerance: number): void {
  const values = want.map(number);
  expect(got.length, what).toBe(values.length);
  const scale = Math.max(1, ...values.filter(Number.isFinite).map(Math.abs));
  for (const [i, w] of values.entries()) {
    const same = Object.is(got[i]! + 0, w + 0) || Math.abs(got[i]! - w) <= tolerance * scale;
    if (!same) expect.fail(`${what}[${i}]: ${got[i]} against ${w}`);
  }
}

describe('jax says the same', () => {
  test.each(Object.keys(cases))('%s and its gradient, f64', async (name) => {
    for (const [i, c] of cases[name]!.entries()) {
      const { got, want } = computed(name, c, 'f64');
      expect(
        got.map((t) => [...t.shape]),
        name,
      ).toEqual(want.map(([, shape]) => shape));
      for (const [k, t] of got.entries()) {
        if (!isFloat(t.dtype)) expect(t.dtype, name).toBe(want[k]![0]);
        // sources are f32 here
        expectNear(`${name} ${i}, result ${k}`, await numbers(t), want[k]!, t.dtype === 'f32' ? 1e-6 : 1e-12);
      }
    }
  });
  test.each(longRows(['wasm', 'webgpu', 'gpujs'] as const, (name) => name !== 'webgpu'))(
    '%s, all cases as one program, f32',
    { timeout: 240_000 },
    async (name) => {
      const backend: Backend = await openBackend(name, { threads: 1 });
      const all = Object.entries(cases).flatMap(([what, list]) =>
        list.flatMap((c, i) => {
          const { got, want } = computed(what, c, 'f32');
          return got.map((t, k) => ({ t, want: want[k]!, what: `${what} ${i}, result ${k}` }));
        }),
      );
      const done = evaluate(
        all.map(({ t }) => t),
        backend,
      );
      for (const [i, { what, want }] of all.entries()) expectNear(what, await read(done[i]!), want, 3e-5);
      await backend.close();
    },
  );
});
