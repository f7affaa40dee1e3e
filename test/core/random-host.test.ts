/** The host's stream of numbers: the generator's known answers, its keys, its golden numbers and its distributions. */
import { describe, expect, it } from 'vitest';
import { randomOf, seedKey, subkey, threefry } from '../../core/index.ts';

describe('threefry', () => {
  // Known answers of the algorithm's authors (Random123, kat_vectors).
  it.each([
    [
      [0, 0],
      [0, 0],
      [0x6b200159, 0x99ba4efe],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x1cb996fc, 0xbb002be7],
    ],
    [
      [0x13198a2e, 0x03707344],
      [0x243f6a88, 0x85a308d3],
      [0xc4923a9c, 0x483df7a0],
    ],
  ] as const)('key %j, counter %j', (key, [c0, c1], expected) => {
    expect(threefry(key[0], key[1], c0, c1)).toEqual(expected);
  });
});

describe('keys', () => {
  it('gives different keys to different names, numbers and orders', () => {
    const key = seedKey(1);
    const names = ['', '\0', 'a', 'a\0', 'abcdefgh', 'abcdefgh\0', 'abcdefghi', 'é', '1'];
    const keys = [...names.map((name) => subkey(key, name)), ...[0, 1, 2 ** 32, 2 ** 52].map((n) => subkey(key, n))];
    const nested = [subkey(subkey(key, 'a'), 'b'), subkey(subkey(key, 'b'), 'a'), subkey(key, 'ab')];
    const all = [...keys, ...nested].map(String);
    expect(new Set(all).size).toBe(all.length);
  });

  it.each([-1, 0.5, Number.NaN, 2 ** 53])('refuses seed %s', (seed) => {
    expect(() => seedKey(seed)).toThrow(/seed .* whole number/);
  });
});

describe('draws', () => {
  // Data sets, splits and batches are made of these: another number is another run for every seed there is.
  it('are the numbers they always were', () => {
    expect(seedKey(2 ** 40 + 7)).toEqual([7, 256]);
    const one = seedKey(1);
    expect([subkey(one, ''), subkey(one, 'abcdefghi'), subkey(one, 2 ** 33 + 5)]).toEqual([
      [3990940141, 3043212986],
      [1813698580, 854636],
      [174725942, 723785270],
    ]);
    const r = randomOf(subkey(subkey(seedKey(2 ** 40 + 7), 'phantom – 7'), 12));
    expect([r.uniform(), r.uniform(-3, 5)]).toEqual([0.43432513498278535, -1.5497748933107962]);
    // the logarithm, the sine and the cosine are the machine's: equal to the last place or next to it
    const normals = [r.normal(), r.normal(2), r.normal()];
    [0.28647191769006025, -1.7602929285190092, -0.7511326272849598].forEach((x, i) => {
      expect(Math.abs(normals[i]! - x)).toBeLessThanOrEqual(4 * Number.EPSILON);
    });
    expect([r.int(1000), r.chance(0.5), r.chance(0.5), r.chance(0.5)]).toEqual([57, true, false, false]);
    expect(r.choice(['a', 'b', 'c', 'd', 'e', 'f', 'g'])).toBe('g');
    expect([0, 0, 0, 0].map(() => r.weighted([1, 2, 3, 4]))).toEqual([0, 2, 2, 2]);
    expect(r.shuffle([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])).toEqual([1, 3, 7, 4, 9, 6, 5, 0, 2, 8]);
  });

  it('repeat from the same key and differ between keys', () => {
    const draw = (seed: number) => {
      const random = randomOf(seedKey(seed));
      return [random.uniform(), random.normal(), random.int(100), random.normal(), random.uniform(2, 3)];
    };
    expect(draw(5)).toEqual(draw(5));
    expect(draw(5)).not.toEqual(draw(6));
  });

  it('have the moments of their distributions', () => {
    const random = randomOf(seedKey(3));
    const n = 40_000;
    const moments = (values: readonly number[]) =>
      [1, 2, 3, 4].map((power) => values.reduce((sum, value) => sum + value ** power, 0) / n);
    const uniforms = moments(Array.from({ length: n }, () => random.uniform()));
    const normals = moments(Array.from({ length: n }, () => random.normal()));
    // Standard errors at n = 40,000 are below 0.0015 (uniform) and 0.05 (fourth moment of the normal); 4 of them.
    [1 / 2, 1 / 3, 1 / 4, 1 / 5].forEach((expected, at) => void expect(uniforms[at]).toBeCloseTo(expected, 2));
    [0, 1, 0, 3].forEach((expected, at) => void expect(Math.abs(normals[at]! - expected)).toBeLessThan(0.2));
    expect(Math.abs(normals[1]! - 1)).toBeLessThan(0.03);
  });

  it('weight choices and shuffle evenly', () => {
    const random = randomOf(seedKey(4));
    const counts = [0, 0, 0];
    for (let i = 0; i < 10_000; i++) counts[random.weighted([0.2, 0, 0.8])]!++;
    expect(counts[1]).toBe(0);
    expect(counts[0]! / 10_000).toBeCloseTo(0.2, 1);

    const orders = new Map<string, number>();
    for (let i = 0; i < 6_000; i++) {
      const order = random.shuffle([1, 2, 3]).join('');
      orders.set(order, (orders.get(order) ?? 0) + 1);
    }
    expect(orders.size).toBe(6);
    // 1,000 each, deviation 29: five deviations.
    for (const seen of orders.values()) expect(Math.abs(seen - 1000)).toBeLessThan(145);
  });

  it('refuses to choose from nothing', () => {
    expect(() => randomOf(seedKey(1)).choice([])).toThrow('at least one value');
  });
});
