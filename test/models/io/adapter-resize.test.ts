/** Adapters at another rank: against decompositions known in closed form, and a search that must not find a closer one. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { randomOf, seedKey } from '../../../core/index.ts';
import { type AdapterModule, deltaWeight } from '../../../models/io/adapter-file.ts';
import { resizeModule, resizeRank } from '../../../models/io/adapter-resize.ts';
import { adapter, module } from '../../support/adapters.ts';

/** The first k columns of a reflection I − 2vvᵀ/|v|²: orthonormal by construction, [n][k]. */
function orthonormal(n: number, k: number, seed: number): number[][] {
  const v = Array.from({ length: n }, (_, i) => Math.sin(seed + 1.7 * i) + 0.1);
  const size = v.reduce((s, x) => s + x * x, 0);
  return v.map((x, i) => Array.from({ length: k }, (_, j) => (i === j ? 1 : 0) - (2 * x * v[j]) / size));
}

/** Σ σ_r·u_r·v_rᵀ over the first `count`, [n][m] row-major. */
function product(u: number[][], sigma: readonly number[], v: number[][], count: number): Float64Array {
  return Float64Array.from({ length: u.length * v.length }, (_, at) => {
    const [i, o] = [Math.floor(at / v.length), at % v.length];
    let sum = 0;
    for (let r = 0; r < count; r++) sum += sigma[r] * u[i][r] * v[o][r];
    return sum;
  });
}

/** A·B without scale, [d_in][d_out] row-major. */
const plain = ({ A, B, rank, dIn, dOut }: AdapterModule): Float64Array =>
  Float64Array.from({ length: dIn * dOut }, (_, at) => {
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += A[Math.floor(at / dOut) * rank + r] * B[r * dOut + (at % dOut)];
    return sum;
  });
const distance = (a: Float64Array, b: Float64Array) => Math.sqrt(a.reduce((s, x, i) => s + (x - b[i]) ** 2, 0));
const norm = (a: Float64Array) => distance(a, new Float64Array(a.length));

const SIGMA = [5, 3, 2, 0.5, 0.125];

/** A module whose ΔW has SIGMA as singular values, given by factors that are mixed: A·M, M⁻¹·B with M a shear. */
function known(dIn: number, dOut: number): { one: AdapterModule; truncated: (k: number) => Float64Array } {
  const [u, v] = [orthonormal(dIn, SIGMA.length, 1), orthonormal(dOut, SIGMA.length, 2)];
  const r = SIGMA.length;
  const shear = 0.75;
  const A = Float32Array.from({ length: dIn * r }, (_, at) => {
    const [i, j] = [Math.floor(at / r), at % r];
    return SIGMA[j] * u[i][j] + (j > 0 ? shear * SIGMA[j - 1] * u[i][j - 1] : 0);
  });
  // M = I + shear·superdiagonal, so row j of M⁻¹·B is B_j − shear·(row j + 1)
  const rows: number[][] = [];
  for (let j = r - 1; j >= 0; j--) rows[j] = v.map((row, o) => row[j] - (j + 1 < r ? shear * rows[j + 1][o] : 0));
  const B = Float32Array.from(rows.flat());
  return {
    one: { A, B, rank: r, dIn, dOut, scale: 0.5 },
    truncated: (k) => product(u, SIGMA, v, k),
  };
}

describe('resizing', () => {
  it.each([
    [12, 7],
    [7, 12],
    [40, 6],
    [5, 5],
  ])('of a %i×%i module keeps the largest singular values', (dIn, dOut) => {
    const { one, truncated } = known(dIn, dOut);
    const whole = SIGMA.reduce((s, x) => s + x * x, 0);
    for (const k of [1, 2, 3, 4, 5]) {
      const { module: small, kept } = resizeModule(one, k);
      expect(small).toMatchObject({ rank: k, dIn, dOut, scale: 0.5 });
      expect(distance(plain(small), truncated(k))).toBeLessThan(3e-6);
      expect(kept).toBeCloseTo(SIGMA.slice(0, k).reduce((s, x) => s + x * x, 0) / whole, 6);
    }
  });

  it('gives both halves the same norm, rank by rank', () => {
    const { module: small } = resizeModule(known(12, 7).one, 3);
    for (let r = 0; r < 3; r++) {
      const a = Math.hypot(...Array.from({ length: 12 }, (_, i) => small.A[i * 3 + r]));
      const b = Math.hypot(...small.B.subarray(r * 7, (r + 1) * 7));
      expect(a).toBeCloseTo(Math.sqrt(SIGMA[r]), 5);
      expect(b).toBeCloseTo(Math.sqrt(SIGMA[r]), 5);
    }
  });

  it('to a rank that suffices loses nothing, whatever the sizes; kept tells the distance otherwise', () => {
    fc.assert(
      fc.property(
        fc.record({ dIn: fc.integer({ min: 1, max: 9 }), dOut: fc.integer({ min: 1, max: 9 }) }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 0, max: 1000 }),
        ({ dIn, dOut }, rank, target, seed) => {
          const random = randomOf(seedKey(seed));
          const normals = (n: number) => Float32Array.from({ length: n }, () => random.normal());
          const one = { A: normals(dIn * rank), B: normals(rank * dOut), rank, dIn, dOut, scale: 3 };
          const { module: other, kept } = resizeModule(one, target);
          const [before, after] = [plain(one), plain(other)];
          expect(other.A).toHaveLength(dIn * target);
          expect(other.B).toHaveLength(dOut * target);
          const lost = norm(before) * Math.sqrt(Math.max(0, 1 - kept));
          expect(Math.abs(distance(before, after) - lost)).toBeLessThan(1e-5 * (1 + norm(before)));
          if (target >= Math.min(rank, dIn, dOut)) expect(distance(before, after)).toBeLessThan(1e-5 * norm(before));
        },
      ),
      { numRuns: 100 },
    );
  });

  it('is closer than any nearby product of that rank', () => {
    const { one } = known(9, 8);
    const { module: small } = resizeModule(one, 2);
    const best = distance(plain(one), plain(small));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), (seed) => {
        const moved = (x: Float32Array, s: number) => x.map((v, i) => v + 0.02 * Math.sin(s + seed * (i + 1)));
        const other = { ...small, A: moved(small.A, 1), B: moved(small.B, 2) };
        expect(distance(plain(one), plain(other))).toBeGreaterThanOrEqual(best - 1e-6);
      }),
    );
  });

  it('of an adapter that was never trained (B = 0) stays zero', () => {
    const untrained = { ...module(3, 6, 4, 1, 0), B: new Float32Array(12) };
    const { module: small, kept } = resizeModule(untrained, 2);
    expect(norm(plain(small))).toBe(0);
    expect([...small.A, ...small.B].every(Number.isFinite)).toBe(true);
    expect(kept).toBe(1);
  });

  it('of a whole adapter gives every module the rank asked for', () => {
    const mixed = adapter(0.3);
    const { adapter: uniform, kept } = resizeRank(mixed, 2);
    expect([...uniform.modules.keys()]).toEqual([...mixed.modules.keys()]);
    for (const [name, one] of uniform.modules) {
      expect(one.rank).toBe(2);
      const before = mixed.modules.get(name)!;
      if (before.rank > 2) continue;
      const [x, y] = [deltaWeight(before), deltaWeight(one)];
      expect(distance(x, y)).toBeLessThan(1e-6 * (1 + norm(x)));
      expect(kept.get(name)).toBeCloseTo(1, 12);
    }
  });
});
