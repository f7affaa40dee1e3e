/** Convolution and its gradients by definition, with what their rounding errors are bounded by, also through the transforms. */
import { type ConvShape, outputSize } from '../../core/backends/wasm/conv/shape.ts';

/** one sum: the terms added up in f64, their magnitude and number */
export interface Sums {
  readonly value: Float64Array;
  readonly size: Float64Array;
  readonly count: Float64Array;
}
const sums = (length: number): Sums => ({
  value: new Float64Array(length),
  size: new Float64Array(length),
  count: new Float64Array(length),
});
const add = ({ value, size, count }: Sums, at: number, term: number): void => {
  value[at]! += term;
  size[at]! += Math.abs(term);
  count[at]! += 1;
};

/** y, dx and dw as the three derivatives of one trilinear form, by its definition */
export const reference = (s: ConvShape, x: Float32Array, w: Float32Array, dy: Float32Array) => {
  const [oh, ow] = outputSize(s);
  const [cg, og] = [s.c / s.groups, s.o / s.groups];
  const [y, dx, dw] = [sums(s.n * oh * ow * s.o), sums(x.length), sums(w.length)];
  for (let n = 0; n < s.n; n++)
    for (let oy = 0; oy < oh; oy++)
      for (let ox = 0; ox < ow; ox++)
        for (let ky = 0; ky < s.kh; ky++)
          for (let kx = 0; kx < s.kw; kx++) {
            const iy = oy * s.stride[0] - s.pad[0][0] + ky;
            const ix = ox * s.stride[1] - s.pad[1][0] + kx;
            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
            // output channels innermost: their neighbours are neighbours in memory
            for (let c = 0; c < s.c; c++) {
              const group = Math.floor(c / cg);
              const atX = ((n * s.h + iy) * s.w + ix) * s.c + c;
              for (let o = group * og; o < (group + 1) * og; o++) {
                const atW = ((ky * s.kw + kx) * cg + (c % cg)) * s.o + o;
                const atY = ((n * oh + oy) * ow + ox) * s.o + o;
                add(y, atY, x[atX]! * w[atW]!);
                add(dx, atX, dy[atY]! * w[atW]!);
                add(dw, atW, dy[atY]! * x[atX]!);
              }
            }
          }
  return { y, dx, dw };
};

/**
 * F(4×4) interpolates at 0, ±5/8, ±3/2, ∞, here by Lagrange's formula: result i is Σ_p p^i·(G g)(p)·(Bᵀ d)(p). The terms that
 * round are |p^i|·|(G g)(p)|·(sum of |Bᵀ|'s row) for inputs ≤ 1, twice over for two axes; `count` adds the steps of the three
 * transforms.
 */
export const winogradSizes = (s: ConvShape, w: Float32Array, { y, dx, dw }: ReturnType<typeof reference>) => {
  const points = [0, 5 / 8, -5 / 8, 3 / 2, -3 / 2];
  const others = (p: number) => points.filter((q) => q !== p);
  const scale = (p: number) => others(p).reduce((n, q) => n * (p - q), 1);
  /** coefficients of Π (x − q) */
  const polynomial = (roots: readonly number[]) => {
    let c = [1];
    for (const q of roots) c = [0, ...c].map((v, i) => v - q * (c[i] ?? 0));
    return c;
  };
  const size1 = (c: readonly number[]) => c.reduce((n, v) => n + Math.abs(v), 0);
  const beta = [...points.map((p) => size1(polynomial(others(p)))), size1(polynomial(points))];
  const g = [...points.map((p) => [0, 1, 2].map((i) => p ** i / scale(p))), [0, 0, 1]];
  /** |G|'s factor of tap t at point p = (r, q), at 9 p + t */
  const factors = Float64Array.from({ length: 36 * 9 }, (_, i) => {
    const [p, t] = [Math.floor(i / 9), i % 9];
    return Math.abs(g[Math.floor(p / 6)]![Math.floor(t / 3)]! * g[p % 6]![t % 3]!);
  });
  const whole = (
    sum: Sums,
    lanes: number,
    k: number,
    tap: (t: number, lane: number, c: number) => number,
    width: number,
    height: number,
  ) => {
    const sizes = [0, 1, 2, 3].map(() => [0, 1, 2, 3].map(() => new Float64Array(lanes)));
    const taps = new Float64Array(9);
    for (let lane = 0; lane < lanes; lane++) {
      const totals = new Float64Array(36);
      for (let c = 0; c < k; c++) {
        for (let t = 0; t < 9; t++) taps[t] = Math.abs(tap(t, lane, c));
        for (let p = 0; p < 36; p++) {
          let u = 0;
          for (let t = 0; t < 9; t++) u += factors[9 * p + t]! * taps[t]!;
          totals[p]! += u;
        }
      }
      for (let p = 0; p < 36; p++) {
        const [r, q] = [Math.floor(p / 6), p % 6];
        const total = totals[p]! * beta[r]! * beta[q]!;
        const power = (at: number, i: number) => (at === 5 ? Number(i === 3) : Math.abs(points[at]!) ** i);
        for (let i = 0; i < 4; i++)
          for (let j = 0; j < 4; j++) sizes[i]![j]![lane]! += power(r, i) * power(q, j) * total;
      }
    }
    return {
      ...sum,
      size: sum.size.map((_, at) => {
        const pixel = Math.floor(at / lanes);
        return sizes[(Math.floor(pixel / width) % height) % 4]![(pixel % width) % 4]![at % lanes]!;
      }),
      count: sum.count.fill(k + 36),
    };
  };
  const at = (t: number, c: number, o: number) => w[(t * s.c + c) * s.o + o]!;
  const [oh, ow] = outputSize(s);
  return {
    y: whole(y, s.o, s.c, (t, o, c) => at(t, c, o), ow, oh),
    dx: whole(dx, s.c, s.o, (t, c, o) => at(8 - t, c, o), s.w, s.h),
    dw,
  };
};
