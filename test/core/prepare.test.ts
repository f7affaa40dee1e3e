/** What backends run, prepared in one place: as text, with modules, and with constants that differ in their sign only. */
import { expect, test } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { makeGraph } from '../../core/compile/compile.ts';
import { interpret } from '../../core/compile/interpret.ts';
import { lower } from '../../core/compile/lower.ts';
import { prepare, printKernels } from '../../core/compile/prepare.ts';
import {
  add,
  type Backend,
  compile,
  cpuBackend,
  dot,
  exp,
  full,
  mul,
  ones,
  recip,
  sub,
  sum,
  swap,
  type Tensor,
} from '../../core/index.ts';
import { hole } from '../../core/ir/tensor.ts';

const cpu = cpuBackend();
const [x, w] = [hole({ shape: [1, 2, 3], dtype: 'f32' }, 'x'), hole({ shape: [1, 5, 3], dtype: 'f32' }, 'w')];

test('kernels as text: shapes, views, costs, how long intermediates live and what results replace', () => {
  const y = dot(exp(x), swap(w));
  const { graph } = makeGraph([sum(mul(y, 2), 2), add(x, 1)], [x, w], new Set([0]), cpu);
  const prepared = prepare(graph, { strided: () => true, maxLoads: 7, merge: { maxLoads: 7, maxOutputs: 3 } });
  expect(printKernels(prepared)).toBe(`inputs %0: f32[6], %1: f32[15]
0  %2: f32[6] until 1, %5: f32[6] over %0 = elementwise [1,2,3]: exp add   %0   12 F  72 B
1  %3: f32[10] until 2 = dot [1,2,3] · [1,3,5] → [1,2,5]   %2 %1(strides 15, 1, 3)   60 F  124 B
2  %4: f32[2] = reduce sum [1,2,5] over 2: mul   %3   10 F  48 B
→ %4, %5`);
  // without leave to, nothing lies over a donated input
  const apart = prepare(graph, { strided: () => true, maxLoads: 7, over: () => false });
  expect(printKernels(apart)).not.toContain('over %');
});

test('a zero and its negative stay two constants inside one kernel', async () => {
  // 1 / (x·0) − 1 / (x·−0) is ∞ + ∞ for x > 0; were the two one, it would be NaN
  const f = (y: Tensor) => sub(recip(mul(y, full([3], 0))), recip(mul(y, full([3], -0))));
  const h = hole({ shape: [3], dtype: 'f32' });
  const { graph } = makeGraph([f(h)], [h], new Set(), cpu);
  const lowered = lower(graph, { strided: () => true, maxLoads: 7 });
  expect(lowered.kernels).toHaveLength(1);
  expect(Array.from(interpret(lowered, [Float32Array.of(1, 2, 3)])[0]!)).toEqual(
    Array(3).fill(Number.POSITIVE_INFINITY),
  );
});

test.each([
  ['cpu', () => cpu as Backend],
  ['wasm', () => wasmBackend({ threads: 1 }) as Backend],
])('%s: kernels carry the module whose parameter they read, as the caller says it', async (_name, open) => {
  const backend = open();
  const f = (p: { readonly a: { readonly scale: Tensor }; readonly b: { readonly scale: Tensor } }, y: Tensor) =>
    sum(dot(dot(y, p.a.scale), p.b.scale));
  const args = [{ a: { scale: ones([1, 2, 2]) }, b: { scale: ones([1, 2, 2]) } }, ones([1, 2, 2])] as const;
  const moduleOf = (label: string) => /^(.*)\.scale$/.exec(label)?.[1];
  const labels = (kernels: readonly { readonly name: string; readonly label?: string }[]) =>
    kernels.filter((k) => k.name === 'dot').map((k) => k.label);
  expect(labels(compile(f, { backend, moduleOf }).inspect(...args).kernels)).toEqual(['a', 'b']);
  // a core that is told nothing guesses nothing
  expect(labels(compile(f, { backend }).inspect(...args).kernels)).toEqual([undefined, undefined]);
  if (backend !== cpu) await backend.close();
});
