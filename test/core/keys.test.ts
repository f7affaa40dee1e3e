/** Keys: independent draws, and the check that finds a key drawn from twice. */
import { describe, expect, test } from 'vitest';
import {
  add,
  checkKeys,
  checkpoint,
  compile,
  cpuBackend,
  fold,
  grad,
  KeyReuseError,
  key,
  keys,
  mul,
  normal,
  splitKey,
  sum,
  type Tensor,
  tensor,
  threefry,
  uniform,
  vmap,
} from '../../core/index.ts';
import { numbers } from '../support/gradcheck.ts';

const k = key(3);
describe('checkKeys', () => {
  test.each([
    ['the same draw twice', () => add(normal(k, [3]), normal(k, [3]))],
    ['draws of different kinds', () => add(normal(k, [3]), uniform(k, [3]))],
    ['draws of different sizes', () => [normal(k, [3]), normal(k, [4])]],
    ['a key made twice from one seed', () => [normal(key(3), [3]), normal(key(3), [3])]],
    ['one part of a split, taken twice', () => [normal(keys(k, 2)[1]!, [2]), uniform(keys(k, 2)[1]!, [2])]],
    ['folds of one number', () => [normal(fold(k, 7), [2]), normal(fold(k, 7), [3])]],
    ['inside vmap', () => vmap((x: Tensor) => add(mul(x, normal(k, [2])), uniform(k, [2])), [0])(tensor([1, 2]))],
  ] as [string, () => Tensor | Tensor[]][])('finds %s', (_name, f) => {
    expect(() => checkKeys(f())).toThrow(KeyReuseError);
  });

  test('names both draws and the fix', () => {
    const label = tensor(Uint32Array.of(1, 2), [2], 'u32', 'noise key');
    expect(() => checkKeys([normal(label, [3]), uniform(label, [5])])).toThrow(
      'noise key is drawn from twice, for [6] and for [5] random words; split it first: const [a, b] = keys(k, 2)',
    );
  });

  test.each([
    ['one draw used twice', () => ((x) => add(mul(x, x), x))(normal(k, [3]))],
    ['parts of a split', () => keys(k, 3).map((q) => normal(q, [2]))],
    ['folds of different numbers', () => [normal(fold(k, 1), [2]), normal(fold(k, 2), [2])]],
    ['a draw, a split and a fold of one key', () => [normal(k, [2]), splitKey(k), fold(k, 1)]],
    [
      'a draw whose gradient is taken',
      () => grad((x: Tensor) => sum(mul(mul(x, x), normal(k, [3]))))(tensor([1, 2, 3])),
    ],
    ['one key for each sample', () => vmap((q: Tensor) => normal(q, [2]), [0])(splitKey(k, 4))],
    [
      'a draw that checkpoint repeats',
      () =>
        grad((x: Tensor) => sum(checkpoint((y: Tensor, q: Tensor) => mul(mul(y, y), normal(q, [3])))(x, k)))(
          tensor([1, 2, 3]),
        ),
    ],
  ] as [string, () => Tensor | Tensor[]][])('passes %s', (_name, f) => {
    const y = f();
    expect(checkKeys(y)).toBe(y);
  });

  test('works while a program is traced', () => {
    const backend = cpuBackend();
    const good = compile((q: Tensor) => checkKeys(keys(q, 2).map((p) => normal(p, [2]))), { backend });
    const bad = compile((q: Tensor) => checkKeys([normal(q, [2]), uniform(q, [2])]), { backend });
    const q = tensor(Uint32Array.of(1, 2));
    expect(good(q)).toHaveLength(2);
    expect(() => bad(q)).toThrow(KeyReuseError);
  });
});

describe('draws', () => {
  test('Threefry-2x32-20 gives the numbers of its authors', () => {
    // Random123's known answers
    expect(threefry(0, 0, 0, 0)).toEqual([0x6b200159, 0x99ba4efe]);
    expect(threefry(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff)).toEqual([0x1cb996fc, 0xbb002be7]);
    expect(threefry(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3)).toEqual([0xc4923a9c, 0x483df7a0]);
  });
  test('uniform and normal have their moments; different keys do not correlate', async () => {
    const n = 20_000;
    const [a, b] = keys(key(11), 2);
    const [u, v, w] = [
      await numbers(uniform(a!, [n])),
      await numbers(normal(b!, [n])),
      await numbers(normal(fold(k, 1), [n])),
    ];
    const mean = (x: readonly number[]) => x.reduce((s, y) => s + y, 0) / x.length;
    expect(u.every((x) => x >= 0 && x < 1)).toBe(true);
    expect(Math.abs(mean(u) - 0.5)).toBeLessThan(4 * Math.sqrt(1 / 12 / n));
    expect(Math.abs(mean(u.map((x) => (x - 0.5) ** 2)) - 1 / 12)).toBeLessThan(4 * Math.sqrt(1 / 180 / n));
    expect(Math.abs(mean(v))).toBeLessThan(4 / Math.sqrt(n));
    expect(Math.abs(mean(v.map((x) => x * x)) - 1)).toBeLessThan(4 * Math.sqrt(2 / n));
    expect(Math.abs(mean(v.map((x, i) => x * w[i]!)))).toBeLessThan(4 / Math.sqrt(n));
  });
  test('a mapped draw is the draw of each key', async () => {
    const many = await numbers(vmap((q: Tensor) => uniform(q, [3]), [0])(splitKey(k, 4)));
    const loop = await Promise.all(keys(k, 4).map((q) => numbers(uniform(q, [3]))));
    expect(many).toEqual(loop.flat());
  });
});
