/** Lowering and planning mean the same as the graph: interpreted kernels against the reference backend, in f64. */
import { expect, test } from 'vitest';
import { makeGraph } from '../../core/compile/compile.ts';
import { storageOn } from '../../core/compile/data.ts';
import { interpret } from '../../core/compile/interpret.ts';
import { type Buffer, lower } from '../../core/compile/lower.ts';
import { merge } from '../../core/compile/merge.ts';
import { arena, type Span, slots, spans } from '../../core/compile/plan.ts';
import {
  add,
  attention,
  type Backend,
  concat,
  conv,
  dot,
  exp,
  expandTo,
  flip,
  full,
  groupNorm,
  iota,
  layerNorm,
  mean,
  mul,
  permute,
  pullback,
  read,
  registry,
  reshape,
  sigmoid,
  slice,
  softmax,
  sub,
  sum,
  swap,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import type { HostArray } from '../../core/ir/dtype.ts';
import { isFloat } from '../../core/ir/dtype.ts';
import type { Attrs, Sample } from '../../core/ir/tensor.ts';
import { apply, cpu, numbers, operands, picker, rng, values, widen } from '../support/gradcheck.ts';
import { LONG } from '../support/long.ts';

const lowered = (outs: readonly Tensor[], strided = true, maxLoads = 7) => {
  const { graph, captured } = makeGraph(outs, [], new Set(), cpu);
  return {
    program: lower(graph, { strided: () => strided, maxLoads }),
    inputs: captured.map((t) => storageOn(t, cpu as Backend) as HostArray),
  };
};
async function same(outs: readonly Tensor[], what: string): Promise<void> {
  const want = await Promise.all(outs.map((o) => numbers(o)));
  for (const [strided, maxLoads] of [
    [true, 7],
    [false, 7],
    [true, 2],
  ] as const) {
    const { program, inputs } = lowered(outs, strided, maxLoads);
    const got = interpret(program, inputs);
    for (const [i, w] of want.entries()) {
      expect(got[i], `${what} output ${i}`).toHaveLength(w.length);
      // one expectation for each output: there are millions of elements
      const off = w.findIndex((v, j) => !(Math.abs(got[i]![j]! - v) <= 1e-12 * (1 + Math.abs(v))));
      expect(off, `${what} output ${i}[${off}]: ${got[i]![off]} against ${w[off]}`).toBe(-1);
    }
    checkPlan(spans(program));
    const merged = merge(program, { maxLoads, maxOutputs: 4 });
    expect(merged.kernels.length).toBeLessThanOrEqual(program.kernels.length);
    expect(interpret(merged, inputs), `${what}, merged`).toEqual(got);
    checkPlan(spans(merged));
  }
}
/** no two buffers that live at once may overlap */
function checkPlan(list: readonly Span[]): void {
  const { offsets, bytes } = arena(list, 64);
  const { slotOf, sizes } = slots(list, 256);
  let alive: Span[] = [];
  for (const a of [...list].sort((x, y) => x.start - y.start)) {
    const x = offsets.get(a.buffer)!;
    expect(x + a.bytes).toBeLessThanOrEqual(bytes);
    expect(sizes[slotOf.get(a.buffer)!]).toBeGreaterThanOrEqual(a.bytes);
    alive = alive.filter((b) => b.end >= a.start);
    const overlapping = alive.filter((b) => {
      const y = offsets.get(b.buffer)!;
      return !(x + a.bytes <= y || y + b.bytes <= x);
    });
    expect(overlapping, 'live buffers overlap').toEqual([]);
    expect(
      alive.filter((b) => slotOf.get(a.buffer) === slotOf.get(b.buffer)),
      'live buffers in one slot',
    ).toEqual([]);
    alive.push(a);
  }
}
const random = rng(5);
const t = (...shape: number[]): Tensor => tensor(Float64Array.from(values({ shape }, random)), shape, 'f64');

test('every op and its gradient', { timeout: 60_000 }, async () => {
  for (const op of registry.values())
    for (let seed = 0; seed < (LONG ? 4 : 1); seed++) {
      const r = rng(seed + 31);
      const sample = widen(op.sample(picker(r)) as Sample<Attrs>);
      const inputs = operands(sample, r);
      const outs = apply(op, inputs, sample.attrs);
      await same(outs, op.name);
      const cts = outs.map((o) =>
        isFloat(o.dtype) ? tensor(values({ shape: o.shape }, r), o.shape, o.dtype) : undefined,
      );
      if (op.vjp === 'nondifferentiable' || cts.every((c) => c === undefined)) continue;
      const back = pullback(outs, cts, inputs).filter((g) => g !== undefined);
      if (back.length > 0) await same(back, `vjp of ${op.name}`);
    }
});

test('layouts between elementwise steps, shared subexpressions, outputs that are views', async () => {
  const x = t(4, 6);
  const y = t(6, 4);
  const e = exp(x);
  await same([mul(swap(e), y), sum(e, 0), e, swap(e), x], 'shared exp');
  await same([slice(e, { axis: 0, stop: 2 })], 'the front of a buffer');
  await same([reshape(permute(sigmoid(t(2, 3, 4)), [2, 0, 1]), [6, 4])], 'reshape of permute');
  await same([add(mul(reshape(swap(x), [2, 12]), full([2, 12], 2, 'f64')), iota([2, 12], 1, 'f64'))], 'iota');
  await same([concat([slice(x, { axis: 1, step: 2 }), flip(slice(x, { axis: 1, start: 3 }), [1])], 1)], 'slices');
  await same([softmax(dot(reshape(x, [1, 4, 6]), reshape(y, [1, 6, 4])))], 'softmax of dot');
  const many = Array.from({ length: 9 }, () => t(3));
  await same([many.reduce((a, b) => add(mul(a, b), a))], 'many operands');
  await same([sub(mean(mul(e, e), [0, 1], true), mean(e, [0, 1], true))], 'two reductions of one node');
  await same([full([3], 2, 'f64'), iota([4], 0, 'f64')], 'fills as outputs');
});

test('blocks of a model with their gradients', async () => {
  const x = t(2, 4, 3, 4);
  const [g, b, w] = [t(4), t(4), t(3, 3, 4, 4)];
  const h = conv(groupNorm(x, g, b, { groups: 2, eps: 1e-5, silu: true }), w, {
    stride: [1, 1],
    pad: [
      [1, 1],
      [1, 1],
    ],
    groups: 1,
  });
  const rows = layerNorm(reshape(add(h, x), [2, 12, 4]), g, b, 1e-5);
  const y = attention(rows, rows, rows, { heads: 2 });
  const loss = mean(mul(y, y));
  await same([loss, ...pullback([loss], [full([], 1, 'f64')], [x, g, b, w]).map((q) => q!)], 'block');
});

test('donated inputs are only reused when nothing reads them later', async () => {
  const { reuseDonated } = await import('../../core/compile/plan.ts');
  const [p, q] = [t(5), t(5)];
  const { graph, captured } = makeGraph([add(p, q), mul(p, 2)], [p, q], new Set([0]), cpu);
  expect(captured).toEqual([]);
  const program = lower(graph, { strided: () => true, maxLoads: 7 });
  const reuse = reuseDonated(program, graph.donated);
  // p is read by both results: only the later one may take its place
  expect(reuse.size).toBe(1);
  const later: Buffer = program.kernels.at(-1)!.outputs[0]!;
  expect(reuse.get(later)).toBe(program.inputs[0]);
  // a product reads all of p for each of its elements: nothing may lie over p while it is made
  const [a, b] = [t(1, 2, 2), t(1, 2, 2)];
  const product = makeGraph([dot(a, b)], [a, b], new Set([0]), cpu).graph;
  expect(reuseDonated(lower(product, { strided: () => true, maxLoads: 7 }), product.donated).size).toBe(0);
  await read(p);
});

test('clusters over the same points become one: what is shared is loaded once, what nobody else reads is not stored', async () => {
  const options = { maxLoads: 16, maxOutputs: 8 };
  const [x, y, z, m, v] = [t(3, 4), t(3, 4), t(3, 4), t(3, 4), t(3, 4)];
  const gated = add(mul(mul(x, sigmoid(x)), y), z);
  const chain = [gated, ...pullback([gated], [gated], [x, y, z]).map((g) => g!)];
  await same(chain, 'gated chain');
  const one = merge(lowered(chain).program, options);
  expect(one.kernels).toHaveLength(1);
  expect([one.kernels[0]!.inputs.length, one.kernels[0]!.outputs.length]).toEqual([3, 4]);

  // the factor of a row stands between the moments and the step: the moments go down to it
  const factor = exp(t(3, 1));
  const [m1, v1] = [add(mul(m, 0.9), x), add(mul(v, 0.9), mul(x, x))];
  const adam = [m1, v1, sub(y, mul(mul(m1, expandTo(factor, [3, 4])), v1))];
  await same(adam, 'adam');
  const two = merge(lowered(adam).program, options);
  expect(two.kernels.map((k) => k.outputs.length)).toEqual([1, 3]);

  // a value read through another view, or by another kind of kernel, must be stored
  const e = exp(x);
  const crossed = [add(e, 1), reshape(swap(e), [12]), sum(e, 0)];
  await same(crossed, 'crossed');
  expect(merge(lowered(crossed).program, options).kernels[0]!.outputs).toHaveLength(2);
  // limits hold
  expect(merge(lowered(chain).program, { maxLoads: 16, maxOutputs: 3 }).kernels.length).toBeGreaterThan(1);
});
