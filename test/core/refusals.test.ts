/** What the ops refuse, at the call, with op and rule; and what `tensor` takes. */
import { describe, expect, test } from 'vitest';
import {
  add,
  attention,
  broadcastTo,
  CoreError,
  concat,
  conv,
  cos,
  dot,
  equal,
  exp,
  expandTo,
  flip,
  full,
  gather,
  groupNorm,
  iota,
  key,
  layerNorm,
  less,
  log,
  max,
  mean,
  mul,
  neg,
  ones,
  pad,
  permute,
  pow,
  pullback,
  recip,
  reshape,
  scatterAdd,
  select,
  sin,
  slice,
  softmax,
  splitKey,
  squeeze,
  stack,
  sum,
  swap,
  type Tensor,
  take,
  takeAlong,
  tensor,
  uniform,
  unsqueeze,
  vmap,
  zeros,
} from '../../core/index.ts';
import { numbers } from '../support/gradcheck.ts';

const f = (v: readonly number[], shape: readonly number[] = [v.length]) => tensor(v, shape);
const i32 = (v: readonly number[], shape: readonly number[] = [v.length]) => tensor(v, shape, 'i32');
const S = {
  stride: [1, 1],
  pad: [
    [0, 0],
    [0, 0],
  ],
  groups: 1,
} as const;
const x23 = f([1, 2, 3, 4, 5, 6], [2, 3]);

describe('refused at the call, with op and rule', () => {
  const ints = i32([1, 2]);
  const bools = tensor([1, 0], [2], 'bool');
  test.each<[string, () => unknown, RegExp]>([
    // dtypes
    ...[exp, log, sin, cos, recip, softmax].map(
      (op, i) =>
        [`float function ${i} of integers`, () => op(ints), /takes floats: cast/] as [string, () => unknown, RegExp],
    ),
    ['mean of integers', () => mean(ints), /^mean: takes floats/],
    ['sum of bools', () => sum(bools), /^sum: takes numbers: cast bools first/],
    ['max of bools', () => max(bools), /^max: takes numbers/],
    ['neg of bools', () => neg(bools), /^neg: takes numbers/],
    ['add of bools', () => add(bools, bools), /^add: takes numbers/],
    ['½ beside integers', () => mul(ints, 0.5), /^mul: beside i32 a number must be whole/],
    ['1.5 compared with integers', () => less(ints, 1.5), /^less: beside i32/],
    ['NaN beside integers', () => add(ints, Number.NaN), /^add: beside i32/],
    ['2 beside bools', () => equal(bools, 2), /^equal: beside bools a number must be 0 or 1/],
    ['a condition of integers', () => select(ints, f([1, 1]), f([2, 2])), /^select: the condition must be bool/],
    ['full of a fraction', () => full([2], 0.5, 'i32'), /^full: beside i32/],
    ['dot of two dtypes', () => dot(ones([1, 1, 1]), i32([1], [1, 1, 1])), /^dot: operands must have equal dtypes/],
    ['dot of bools', () => dot(tensor([1], [1, 1, 1], 'bool'), tensor([1], [1, 1, 1], 'bool')), /^dot: takes numbers/],
    [
      'conv of two dtypes',
      () => conv(ones([1, 2, 2, 1]), i32([1], [1, 1, 1, 1]), S),
      /^conv: operands must have equal/,
    ],
    ['conv of integers', () => conv(i32([1], [1, 1, 1, 1]), i32([1], [1, 1, 1, 1]), S), /^conv: takes floats: cast/],
    ['layerNorm of integers', () => layerNorm(i32([1, 2], [1, 2]), ints, ints, 1e-5), /^layerNorm: takes floats/],
    [
      'attention of integers',
      () => attention(i32([1], [1, 1, 1]), i32([1], [1, 1, 1]), i32([1], [1, 1, 1]), { heads: 1 }),
      /^attention: takes floats/,
    ],
    [
      'attention with half a head',
      () => attention(ones([1, 1, 2]), ones([1, 1, 2]), ones([1, 1, 2]), { heads: 0.5 }),
      /heads/,
    ],
    [
      'groupNorm of no group',
      () => groupNorm(ones([1, 1, 1, 2]), ones([2]), ones([2]), { groups: 0, eps: 0, silu: false }),
      /groups/,
    ],
    ['float ids', () => gather(x23, f([0, 1])), /integer ids/],
    ['float ids of scatterAdd', () => scatterAdd(f([1, 2]), f([0, 1]), 2), /integer ids/],
    ['float ids of takeAlong', () => takeAlong(x23, f([0, 1], [2, 1]), 1), /integer ids/],
    ['bool ids', () => take(x23, tensor([1], [1], 'bool'), 0), /integer ids/],
    ['too many ids beside', () => takeAlong(x23, i32([0, 0, 0], [3, 1]), 1), /larger/],
    ['powers of integers below 0', () => pow(ints, -1), /^pow: takes floats/],
    ['fractional powers of integers', () => pow(ints, 0.5), /^pow: takes floats/],
    // axes
    ['sum over an axis twice', () => sum(x23, [0, -2]), /^sum: axes \[0, -2\] must be different/],
    ['mean over half an axis', () => mean(x23, 0.5), /^mean: axes \[0\.5\] must lie/],
    ['max over axis −3', () => max(x23, -3), /^max: axes/],
    ['flip twice', () => flip(x23, [0, 0]), /^flip: axes \[0, 0\] must be different/],
    ['flip axis 2', () => flip(x23, [2]), /^flip: axes/],
    ['concat on axis 2', () => concat([x23, x23], 2), /^concat: axis 2/],
    ['concat of nothing', () => concat([], 0), /^concat: needs at least one/],
    ['concat of one on axis 5', () => concat([x23], 5), /^concat: axis 5/],
    ['stack on axis 4', () => stack([x23, x23], 4), /^stack: axis 4/],
    ['squeeze axis 7', () => squeeze(x23, 7), /^squeeze: axis 7/],
    ['squeeze an axis of 3', () => squeeze(x23, 1), /^squeeze: axis 1 has size 3/],
    ['unsqueeze at 4', () => unsqueeze(x23, 4), /^unsqueeze: axis 4/],
    ['swap with axis 5', () => swap(x23, 0, 5), /^swap: axis 5/],
    ['permute of halves', () => permute(x23, [0.5, 1]), /^permute/],
    ['slice the same axis twice', () => slice(x23, { axis: 0, start: 1 }, { axis: -2, start: 0 }), /^slice: axes/],
    ['slice axis 2', () => slice(x23, { axis: 2 }), /^slice: axes/],
    ['iota of axis 1', () => iota([3], 1), /^iota: axis 1/],
    // sizes
    ['slice one too far', () => slice(x23, { axis: 1, stop: 4 }), /^slice: .* lies outside the operand/],
    ['dot of lengths that differ', () => dot(ones([1, 1, 3]), ones([1, 2, 1])), /^dot: needs equal k: 3 ≠ 2/],
    ['conv of channels that do not fit', () => conv(ones([1, 2, 2, 3]), ones([1, 1, 2, 1]), S), /^conv: needs c = 1·/],
    ['slice from ½', () => slice(x23, { axis: 0, start: 0.5 }), /^slice: start must be whole/],
    ['slice by steps of ½', () => slice(x23, { axis: 0, step: 0.5 }), /^slice: step must be whole/],
    ['slice by steps of 0', () => slice(x23, { axis: 0, step: 0 }), /^slice: step/],
    ['zeros of 2.5', () => zeros([2.5]), /^full: the result would be \[2\.5\]/],
    ['ones of −1', () => ones([-1]), /^full: the result would be \[-1\]/],
    ['iota of −1', () => iota([-1]), /^iota: the result/],
    ['expand to −1', () => expandTo(f([1]), [-1]), /^expand: the result/],
    ['broadcast to fewer axes', () => broadcastTo(x23, [3]), /^broadcastTo/],
    ['reshape −1 beside 0', () => reshape(zeros([0, 2]), [0, -1]), /^reshape/],
    [
      'pad by ½',
      () =>
        pad(x23, [
          [0, 0.5],
          [0, 0],
        ]),
      /^pad: low, high/,
    ],
    ['pad of too few axes', () => pad(x23, [[0, 0]]), /^pad: low, high/],
    ['stride 1.5', () => conv(ones([1, 4, 4, 1]), ones([1, 1, 1, 1]), { ...S, stride: [1.5, 1] }), /^conv: strides/],
    ['stride 0', () => conv(ones([1, 4, 4, 1]), ones([1, 1, 1, 1]), { ...S, stride: [0, 1] }), /^conv: strides/],
    [
      'pad ½',
      () =>
        conv(ones([1, 4, 4, 1]), ones([1, 1, 1, 1]), {
          ...S,
          pad: [
            [0.5, 0],
            [0, 0],
          ],
        }),
      /^conv: pads/,
    ],
    ['half a group', () => conv(ones([1, 4, 4, 1]), ones([1, 1, 2, 1]), { ...S, groups: 0.5 }), /^conv: groups/],
    ['scatter into 1.5 rows', () => scatterAdd(f([1]), i32([0]), 1.5), /^scatterAdd: rows/],
    ['half a key', () => splitKey(key(1), 0.5), /^randomBits|^reshape/],
    ['a key of ½', () => key(0.5), /^key: seeds/],
    ['uniform of 1.5 numbers', () => uniform(key(1), [1.5]), /^uniform/],
    // tensors
    ['ragged rows', () => tensor([[1, 2], [3]]), /^tensor: nested arrays must be rows of equal length/],
    ['rows of different depth', () => tensor([[1, 2], 3]), /^tensor: nested/],
    ['a fraction as integer', () => tensor([1.5], [1], 'i32'), /^tensor: value 0 is 1\.5/],
    ['a size of 1.5', () => tensor([1, 2, 3], [1.5, 2]), /^tensor: sizes/],
    // transformations
    ['a cotangent of another shape', () => pullback([mul(x23, 2)], [ones([3])], [x23]), /^pullback: the cotangent/],
    ['a cotangent of another dtype', () => pullback([mul(x23, 2)], [ones([2, 3], 'i32')], [x23]), /^pullback: the/],
    ['too many cotangents', () => pullback([mul(x23, 2)], [ones([2, 3]), ones([2, 3])], [x23]), /^pullback: 1 results/],
    ['out-axis 5', () => vmap((x: Tensor) => mul(x, 1), [0], 5)(x23), /^vmap: out-axis 5/],
    ['out-axis ½', () => vmap((x: Tensor) => mul(x, 1), [0], 0.5)(x23), /^vmap: out-axis/],
    ['in-axis −3', () => vmap((x: Tensor) => mul(x, 1), [-3])(x23), /^vmap: argument 0 in-axis -3/],
    [
      'an in-axis that is no list',
      () => (vmap as unknown as (g: unknown, axes: number) => () => unknown)((x: Tensor) => x, 0)(),
      /^vmap: the in-axes are a list/,
    ],
    [
      'too few in-axes',
      () => vmap(((x: Tensor) => x) as never, [0] as never)(x23 as never, x23 as never),
      /^vmap: 2 arg/,
    ],
  ])('%s', (_name, build, message) => {
    let error: unknown;
    try {
      build();
    } catch (e) {
      error = e;
    }
    expect(error).toBeInstanceOf(CoreError);
    expect((error as Error).message).toMatch(message);
  });
});

test('tensor takes nested arrays', async () => {
  const t = tensor([
    [
      [1, 2],
      [3, 4],
    ],
    [
      [5, 6],
      [7, 8],
    ],
  ]);
  expect([t.shape, t.dtype, await numbers(t)]).toEqual([[2, 2, 2], 'f32', [1, 2, 3, 4, 5, 6, 7, 8]]);
  expect(tensor([[], []]).shape).toEqual([2, 0]);
  expect(await numbers(tensor([[1], [0]], undefined, 'bool'))).toEqual([1, 0]);
});

/** an edge case: what is computed, and what plain JavaScript says */
