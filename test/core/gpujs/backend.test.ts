/** The gpu.js backend in both modes: every op against the reference, and an honest list of what falls back. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { gpujsBackend } from '../../../core/backends/gpujs/index.ts';
import {
  add,
  type Backend,
  compile,
  dot,
  evaluate,
  exp,
  grad,
  mean,
  mul,
  read,
  registry,
  softmax,
  sub,
  sum,
  type Tensor,
  tensor,
} from '../../../core/index.ts';
import type { Attrs, Op, Sample } from '../../../core/ir/tensor.ts';
import { apply, cpu, operands, picker, rng, values } from '../../support/gradcheck.ts';
import { LONG, longRows } from '../../support/long.ts';

const random = rng(17);
const t = (...shape: number[]): Tensor => tensor(Float32Array.from(values({ shape }, random)), shape);

describe.each(['cpu', 'webgpu'] as const)('mode %s', { timeout: 60_000 }, (mode) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = (await gpujsBackend({ mode })) as Backend;
  });
  afterAll(() => backend.close());
  // gpu.js calls WGSL's own exp, log and tanh
  const tolerance = mode === 'cpu' ? 2e-6 : 1e-5;
  const compare = async (outs: readonly Tensor[], what: string) => {
    const placed = evaluate([...outs], backend);
    const exact = evaluate([...outs], cpu);
    for (const i of outs.keys()) {
      const want = Array.from(await read(exact[i]!));
      const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-3);
      const got = await read(placed[i]!);
      expect(got.length).toBe(want.length);
      const off = want.findIndex((v, j) => !(Math.abs(got[j]! - v) <= tolerance * scale));
      expect(off, `${what} output ${i}[${off}]: ${got[off]} against ${want[off]}`).toBe(-1);
    }
  };

  // rotations are loops that gpu.js compiles one by one
  const slow = ['eigh', 'svd'];
  const rows = longRows([...registry.values()], (op) => !slow.includes(op.name));
  test.each(rows.map((op) => [op.name, op] as [string, Op]))('%s', async (name, op) => {
    for (let seed = 0; seed < (LONG || mode === 'cpu' ? 3 : 1); seed++) {
      const r = rng(seed + 7);
      const sample = op.sample(picker(r)) as Sample<Attrs>;
      await compare(apply(op, operands(sample, r, 'f32'), sample.attrs), name);
    }
  });
  test('what falls back is listed, and dot and clusters do not', async () => {
    await compare([sum(exp(softmax(dot(t(2, 3, 4), t(2, 4, 5)))), [0, 1])], 'softmax of dot');
    expect(backend.fallbacks).toContain('conv');
    expect(backend.fallbacks).not.toContain('dot');
    expect(backend.fallbacks).not.toContain('exp');
  });
  test('a step with gradients equals the reference', async () => {
    const step = (w: Tensor, x: Tensor) =>
      sub(w, mul(grad((v: Tensor) => mean(mul(dot(x, v), add(dot(x, v), 1))))(w), 0.1));
    const [w, x] = [t(1, 6, 3), t(1, 5, 6)];
    const ours = await read(compile(step, { backend })(w, x));
    const want = await read(compile(step, { backend: cpu })(w, x));
    want.forEach((v, i) => {
      expect(Math.abs(ours[i]! - v)).toBeLessThan(1e-5);
    });
  });
});
