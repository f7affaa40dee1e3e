/** What a wrong program is told: the op, the operands with their names, the rule, and the line that asked. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  add,
  attention,
  broadcastTo,
  CoreError,
  concat,
  conv,
  dot,
  floor,
  full,
  gather,
  grad,
  groupNorm,
  layerNorm,
  MissingRuleError,
  max,
  mean,
  mul,
  pad,
  permute,
  reshape,
  ShapeError,
  select,
  slice,
  sum,
  type Tensor,
  take,
  takeAlong,
  tensor,
  uniform,
  vmap,
} from '../../core/index.ts';
import { callerLine } from '../../core/ir/errors.ts';

const data = (shape: readonly number[], label?: string): Tensor =>
  tensor(new Float32Array(shape.reduce((p, n) => p * n, 1)), shape, 'f32', label);
const caught = (f: () => unknown): Error => {
  try {
    f();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
};

describe('shape errors', () => {
  test('in full: op, rule, operands by letter with their labels, the line of the caller', () => {
    const [a, b] = [data([1, 616, 768], 'text.last_hidden_state'), data([1, 640, 320], 'unet.attn2.to_k.weight')];
    const error = caught(() => dot(a, b));
    expect(error).toBeInstanceOf(ShapeError);
    expect(error.name).toBe('ShapeError');
    const line =
      readFileSync(import.meta.filename, 'utf8')
        .split('\n')
        .findIndex((l) => l.includes('caught(() => dot(a, b))')) + 1;
    expect(error.message.split('\n')).toEqual([
      'dot: needs equal k: 768 ≠ 640  (a[g,m,k] · b[g,k,n])',
      '  a  f32[1, 616, 768]   text.last_hidden_state',
      '  b  f32[1, 640, 320]   unet.attn2.to_k.weight',
      `  at test/core/errors.test.ts:${line}`,
    ]);
  });

  test.each([
    [
      'add',
      () => add(data([2, 3]), data([4, 3])),
      /^add: axes must be equal or 1 to broadcast: 2 ≠ 4\n {2}a {2}f32\[2, 3\]\n {2}b {2}f32\[4, 3\]\n {2}at test\//,
    ],
    ['mul of dtypes', () => mul(data([2]), full([2], 1, 'i32')), /^mul: operands must have equal dtypes/],
    ['two plain numbers', () => add(1, 2), /^add: at least one operand must be a tensor/],
    [
      'take',
      () => take(data([2, 3]), full([1], 0, 'i32'), 2),
      /^take: axis 2 must lie within the 2 axes of the first operand\n {2}a {2}f32\[2, 3\]/,
    ],
    ['takeAlong', () => takeAlong(data([2, 3]), full([2, 1], 0, 'i32'), -3), /^takeAlong: axis -3 must lie within/],
    ['takeAlong, ranks', () => takeAlong(data([2, 3]), full([2], 0, 'i32'), 0), /^takeAlong: ids must have as many/],
    ['select', () => select(full([2], 1, 'bool'), data([3]), 0), /^select: axes must be equal or 1/],
    ['reshape', () => reshape(data([2, 3]), [4, 2]), /^reshape: cannot become \[4, 2\]: 6 ≠ 8 elements/],
    [
      'reshape with −1',
      () => reshape(data([2, 3]), [4, -1]),
      /^reshape: cannot become \[4, 1\.5\]: sizes must be whole/,
    ],
    [
      'reshape with two −1',
      () => reshape(data([4]), [-1, -1]),
      /^reshape: cannot become \[4, -1\]: sizes must be whole, with at most one −1/,
    ],
    ['permute', () => permute(data([2, 3]), [0, 0]), /^permute: \[0, 0\] is not an order of 2 axes/],
    [
      'expand',
      () => broadcastTo(data([2, 3]), [2, 4]),
      /^expand: cannot become \[2, 4\]: only axes of size 1 may grow/,
    ],
    ['slice', () => slice(data([4]), { axis: 0, start: 1, stop: 9 }), /^slice: \[1\]…\[9\] lies outside the operand/],
    ['pad', () => pad(data([4]), [[-1, 0]]), /^pad: low, high and interior must be ≥ 0 and whole, one per axis/],
    [
      'concat',
      () => concat([data([2, 3]), data([3, 3])], 1),
      /^concat: operands must agree in dtype and on every axis but 1/,
    ],
    ['sum', () => sum(data([2, 3]), 2), /^sum: axes \[2\] must lie within the operand/],
    ['max', () => max(data([2, 3]), [0, 5]), /^max: axes \[0, 5\] must lie within the operand/],
    ['mean', () => mean(data([2, 3]), 7), /^mean: axes \[7\] must lie within the operand/],
    ['gather', () => gather(data([4, 2]), data([3])), /^gather: operands must be x\[v, …\] and integer ids/],
    ['dot ranks', () => dot(data([2, 3]), data([3, 2])), /^dot: operands must be a\[g,m,k\] and b\[g,k,n\]/],
    ['dot groups', () => dot(data([2, 3, 1]), data([1, 1, 2])), /^dot: needs equal g: 2 ≠ 1/],
    [
      'conv channels',
      () =>
        conv(data([1, 8, 8, 3]), data([3, 3, 4, 8]), {
          stride: [1, 1],
          pad: [
            [1, 1],
            [1, 1],
          ],
          groups: 1,
        }),
      /^conv: needs c = 1·w\.shape\[2\] and o divisible by 1 groups: c 3, w\[2\] 4, o 8/,
    ],
    [
      'conv kernel too large',
      () =>
        conv(data([1, 2, 2, 3]), data([5, 5, 3, 8]), {
          stride: [1, 1],
          pad: [
            [0, 0],
            [0, 0],
          ],
          groups: 1,
        }),
      /^conv: kernel 5×5 is larger than the padded picture/,
    ],
    [
      'layerNorm',
      () => layerNorm(data([2, 4]), data([3]), data([4]), 1e-5),
      /^layerNorm: operands must be x\[r,c\], γ\[c\], β\[c\]/,
    ],
    [
      'groupNorm',
      () => groupNorm(data([1, 2, 2, 6]), data([6]), data([6]), { groups: 4, eps: 1e-5, silu: false }),
      /^groupNorm: 6 channels do not divide into 4 groups/,
    ],
    [
      'attention',
      () => attention(data([1, 2, 6]), data([1, 3, 6]), data([1, 3, 6]), { heads: 4 }),
      /^attention: 6 channels do not divide into 4 heads/,
    ],
    ['random key', () => uniform(data([2]), [3]), /^randomBits: operands must be key u32\[…, 2\]/],
  ] as [string, () => unknown, RegExp][])('%s', (_name, f, message) => {
    const error = caught(f);
    expect(error).toBeInstanceOf(ShapeError);
    expect(error.message).toMatch(message);
    expect(error.message).toMatch(/\n {2}at test\/core\/errors\.test\.ts:\d+$/);
  });

  test('inside transformations the line is still that of the caller', () => {
    const error = caught(() =>
      vmap(
        grad((x: Tensor) => sum(dot(x, data([1, 9, 1], 'w')))),
        [0],
      )(data([2, 1, 3, 4])),
    );
    expect(error.message).toMatch(/^dot: needs equal k: 4 ≠ 9/);
    expect(error.message).toMatch(/\n {2}at test\/core\/errors\.test\.ts:\d+$/);
  });
});

describe('transformations', () => {
  test('grad needs a scalar', () => {
    expect(() => grad((x: Tensor) => mul(x, 2))(data([3]))).toThrow(
      new ShapeError('grad: the function must return a scalar, not f32[3]'),
    );
  });
  test('vmap names the argument and the leaf whose size differs', () => {
    const f = vmap((p: { readonly a: Tensor; readonly b: Tensor }, x: Tensor) => mul(add(p.a, p.b), x), [0, 0]);
    expect(() => f({ a: data([3]), b: data([4]) }, data([3]))).toThrow(
      new ShapeError('vmap: argument 0 (b) has size 4 on axis 0, others have 3'),
    );
    expect(() => f({ a: data([3]), b: data([3]) }, data([2]))).toThrow(/^vmap: argument 1 has size 2 on axis 0/);
    expect(() => vmap((x: Tensor) => x, [1])(data([3]))).toThrow(
      /^vmap: argument 0 in-axis 1 must be a whole number that lies within the 1 axes/,
    );
    expect(() => vmap((x: Tensor) => x, [null])(data([3]))).toThrow(/at least one argument must be mapped/);
  });
  test('an op without derivative is an error by name, never a zero gradient', () => {
    expect(() => grad((x: Tensor) => sum(floor(x)))(data([3]))).toThrow(
      new MissingRuleError('floor has no derivative; wrap its argument in stopGradient if a constant is meant'),
    );
    expect(MissingRuleError.prototype).toBeInstanceOf(CoreError);
  });
});

describe('the line of the caller', () => {
  const stack = (...lines: string[]) => ['Error', ...lines.map((l) => `    at ${l}`)].join('\n');
  test.each([
    [['f (/x/core/ops/dot.ts:3:1)', 'g (/x/app.ts:7:5)'], '/x/app.ts:7'],
    [['file:///x/core/fused/norm.ts:3:1', 'file:///x/models/unet.ts:41:9'], '/x/models/unet.ts:41'],
    [['h (/x/node_modules/tsx/a.mjs:1:1)', 'node:internal/main:2:2', '/x/b.mts:4'], '/x/b.mts:4'],
    [['C (/x/core/index.ts:9:1)'], '/x/core/index.ts:9'],
    [['(native)'], 'unknown line'],
  ])('%j', (lines, want) => {
    expect(callerLine(stack(...lines))).toBe(want);
  });
  test('no stack', () => {
    expect(callerLine(undefined)).toBe('unknown line');
  });
});
