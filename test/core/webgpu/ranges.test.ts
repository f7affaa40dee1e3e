/** Tensors larger than one binding: with an artificially small limit everything is bound in ranges and stays the same. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { forEach, word } from '../../../core/backends/webgpu/copies.ts';
import { type WebgpuBackend, webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import { createParams } from '../../../core/backends/webgpu/kernel.ts';
import { bindRanges } from '../../../core/backends/webgpu/ranges.ts';
import {
  add,
  attention,
  type Backend,
  cast,
  compile,
  concat,
  conv,
  dot,
  evaluate,
  exp,
  gather,
  groupNorm,
  key,
  layerNorm,
  mul,
  normal,
  pullback,
  read,
  reshape,
  scatterAdd,
  slice,
  softmax,
  sum,
  swap,
  type Tensor,
  tensor,
} from '../../../core/index.ts';
import { cpu, numbers, rng, values } from '../../support/gradcheck.ts';

// software drivers build pipelines slowly when the machine is busy
vi.setConfig({ testTimeout: 120_000 });

const BYTES = 1024;
let whole: Backend;
let split: WebgpuBackend;
beforeAll(async () => {
  whole = (await webgpuBackend()) as Backend;
  split = await webgpuBackend({ bindingBytes: BYTES });
});
afterAll(() => split.close());

const random = rng(23);
const t = (...shape: number[]): Tensor => tensor(Float32Array.from(values({ shape }, random)), shape);
const halves = (...shape: number[]): Tensor =>
  tensor(
    Uint16Array.from(values({ shape }, random), (x) => 0x3000 + Math.floor(Math.abs(x) * 500)),
    shape,
    'f16',
  );
const ids = tensor(Int32Array.of(39, 0, -1, 17, 16, 40, 31), [7], 'i32');
const back = (y: Tensor, inputs: readonly Tensor[]): Tensor[] => pullback([y], [t(...y.shape)], inputs).map((g) => g!);

const same = {
  stride: [1, 1],
  pad: [
    [1, 1],
    [1, 1],
  ],
  groups: 1,
} as const;

/** every kernel, with operands of up to 6 KiB */
const cases: Readonly<Record<string, () => readonly Tensor[]>> = {
  'dot with a large weight': () => [dot(t(1, 5, 24), t(1, 24, 61)), dot(t(1, 6, 24), t(1, 24, 64))],
  'dot with a large weight stored by columns': () => [
    dot(t(1, 33, 8), swap(t(1, 60, 8))),
    dot(t(1, 5, 24), swap(t(1, 40, 24))),
  ],
  'dot of many rows': () => [dot(t(1, 130, 7), t(1, 7, 3))],
  'gather from a large table': () => [gather(t(40, 25), ids), cast(gather(halves(40, 33), ids), 'f32')],
  scatterAdd: () => [scatterAdd(t(7, 25), ids, 41)],
  'elementwise chains': () => [
    add(mul(exp(t(700)), t(700)), 1),
    add(t(11, 60), t(60)),
    add(t(13, 29), swap(t(29, 13))),
  ],
  'reductions along and across': () => [sum(t(9, 101), 1), sum(t(9, 101), 0), sum(t(7, 128), 1), softmax(t(6, 120))],
  'widened halves, a view': () => [cast(halves(900), 'f32'), cast(swap(halves(31, 30)), 'f32')],
  'concat and pad': () => [
    concat([t(9, 40), t(9, 31)], 1),
    ...back(slice(t(31, 30), { axis: 0, start: 2, step: 3 }), []),
  ],
  'convolution and its gradients': () => {
    const [x, w] = [t(1, 9, 8, 8), t(3, 3, 8, 8)];
    const y = conv(x, w, same);
    return [y, ...back(y, [x, w])];
  },
  'attention forward': () => [attention(t(1, 40, 12), t(1, 43, 12), t(1, 43, 12), { heads: 2 })],
  norms: () => {
    const [x, gamma, beta] = [t(2, 5, 4, 8), t(8), t(8)];
    const [y, z] = [
      groupNorm(x, gamma, beta, { groups: 2, eps: 1e-5, silu: true }),
      layerNorm(t(70, 8), gamma, beta, 1e-5),
    ];
    return [y, z, ...back(y, [x])];
  },
  'random numbers': () => [normal(key(3), [500])],
};

test.each(Object.entries(cases))('%s', async (_name, graph) => {
  const outs = graph();
  const [a, b] = [evaluate([...outs], whole), evaluate([...outs], split as Backend)];
  for (const [i, o] of outs.entries()) {
    const got = await read(b[i]!);
    expect(got, 'the same bits as in one binding').toEqual(await read(a[i]!));
    const want = await numbers(o, cpu);
    const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-3);
    want.forEach((v, j) => {
      expect(Math.abs(got[j]! - v)).toBeLessThanOrEqual(2e-5 * scale);
    });
  }
});

test('a donated state is updated in place through ranges', async () => {
  const step = (w: Tensor, g: Tensor) => add(mul(w, 0.5), g);
  const run = compile(step, { backend: split as Backend, donate: [0] });
  const [w, g] = [Float32Array.from({ length: 900 }, (_, i) => i), Float32Array.from({ length: 900 }, (_, i) => -i)];
  const out = await read(run(tensor(w, [900]), tensor(g, [900])));
  expect([...out]).toEqual([...w].map((v, i) => v * 0.5 + g[i]!));
});

test('too many ranges are refused with both numbers', async () => {
  const { count } = (await import('../../../core/backends/webgpu/device.ts').then((m) => m.openDevice())).bindings;
  const x = t((BYTES / 4) * count);
  expect(() => evaluate([exp(reshape(x, [BYTES / 4, count]))], split as Backend)).toThrow(
    `elementwise needs ${2 * count} storage bindings of at most ${BYTES} bytes, this WebGPU adapter gives a kernel ${count}`,
  );
});

test('the text of a kernel: one binding per range, nested reads, both ends of a range', () => {
  const p = createParams();
  const kernel = forEach('k', 'cpu', 600, p, [word('x'), word('ids')], word('y'), 'y[i] = x[ids[i]] + y[i + 1u];');
  expect(bindRanges(kernel, [1024, 1024, 1024], { bytes: 1024, count: 12 }).kernel).toBe(kernel);
  const { kernel: k, ranges } = bindRanges(kernel, [1028, 600, 2060], { bytes: 1024, count: 12 });
  expect(ranges).toEqual([
    { operand: 0, offset: 0, size: 1024 },
    { operand: 0, offset: 1024, size: 16 },
    { operand: 1, offset: 0, size: 608 },
    { operand: 2, offset: 0, size: 1024 },
    { operand: 2, offset: 1024, size: 1024 },
    { operand: 2, offset: 2048, size: 16 },
  ]);
  expect([k.reads, k.writes]).toEqual([3, 3]);
  expect(k.code).toContain('set_y(i, get_x(ids[i]) + get_y(i + 1u));');
  expect(k.code).toContain('  if (i < 512u) { return y_1[i - 256u]; }\n  return y_2[i - 512u];');
  expect([...k.code.matchAll(/@binding\((\d)\)/g)].map((m) => m[1])).toEqual(['0', '1', '2', '3', '4', '5', '6']);
});
