/** Which directions a module's gradient has, and what each would bring on data it was not taken from. Host, f64. */
import { EigenvalueDecomposition, Matrix, SVD } from 'ml-matrix';

/** A row-major matrix on the host. */
export type Rows = { readonly data: ArrayLike<number>; readonly shape: readonly [number, number] };
/** A direction as one half of the data has it: u[d_in] = Q·c, and the signs of its row uᵀG[d_out] there. */
export type Side = { readonly u: Float64Array; readonly c: Float64Array; readonly signs: Float64Array };
/** One direction of G. */
export type Direction = {
  /** [d_in], of norm 1 */
  readonly u: Float64Array;
  /** uᵀG is so long on average */
  readonly sigma: number;
  /** what Adam's first step on a new row with column √2·u lowers the loss by, per unit of learning rate */
  readonly gain: number;
  /** ‖uᵀG‖² on the half u was not taken from, as a share of the most any one direction catches there */
  readonly caught: number;
  /** the same direction taken from the first half alone and from the second: what the gain is counted by on the other */
  readonly halves: readonly [Side, Side];
};

const matrix = ({ data, shape: [rows, columns] }: Rows): Matrix => {
  const m = new Matrix(rows, columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) m.set(i, j, data[i * columns + j]!);
  return m;
};
/** left singular vectors and values, the largest first */
function leftOf(m: Matrix): { readonly vectors: Matrix; readonly values: readonly number[] } {
  if (m.rows < m.columns) return leftOfWide(m);
  const svd = new SVD(m, { computeRightSingularVectors: false, autoTranspose: true });
  return { vectors: svd.leftSingularVectors, values: svd.diagonal };
}
/** The same of few rows by the eigenvectors of M·Mᵀ: values below 1e-8 of the largest are rounding, as they are of gradients in f32. */
function leftOfWide(m: Matrix): { readonly vectors: Matrix; readonly values: readonly number[] } {
  const rows = m.to2DArray();
  const square = new Matrix(m.rows, m.rows);
  for (const [i, a] of rows.entries())
    for (let k = 0; k <= i; k++) {
      let sum = 0;
      const b = rows[k]!;
      for (let j = 0; j < a.length; j++) sum += a[j]! * b[j]!;
      square.set(i, k, sum);
      square.set(k, i, sum);
    }
  const { eigenvectorMatrix: V, realEigenvalues } = new EigenvalueDecomposition(square, { assumeSymmetric: true });
  const order = [...realEigenvalues.keys()].sort((a, b) => realEigenvalues[b]! - realEigenvalues[a]!);
  return {
    vectors: V.subMatrixColumn(order),
    values: order.map((i) => Math.sqrt(Math.max(0, realEigenvalues[i]!))),
  };
}
/** singular values below this share of a matrix's size are rounding */
const ROUNDING = 1e-10;

/** An orthonormal basis of the columns of m, [rows, k], what is small beside `size` left out; k may be 0. */
function basisOf(m: Matrix, size = m.norm()): Matrix {
  if (m.columns === 0) return m;
  const { vectors, values } = leftOf(m);
  const k = values.filter((s) => s > ROUNDING * size).length;
  return k === 0 ? new Matrix(m.rows, 0) : vectors.subMatrix(0, m.rows - 1, 0, k - 1);
}

/**
 * Q[d_in, k], k ≤ q: an orthonormal basis of the range of G, from a sketch Y = G·Ωᵀ[d_in, q], free of the columns A[d_in, r]
 * that are learned already. Source: Halko, Martinsson and Tropp, Finding Structure with Randomness (2011), algorithm 4.1.
 */
export function rangeOf(sketch: Rows, A: Rows): Matrix {
  const own = basisOf(matrix(A));
  let y = matrix(sketch);
  const size = y.norm();
  // twice is enough for what rounding leaves
  if (own.columns > 0) for (let k = 0; k < 2; k++) y = Matrix.sub(y, own.mmul(own.transpose().mmul(y)));
  return basisOf(y, size);
}

const rowOf = (m: Matrix, k: number): Float64Array => Float64Array.from({ length: m.rows }, (_, i) => m.get(i, k));
/** Σ_j sign(cᵀX)_j·(cᵀY)_j, ‖cᵀY‖² and sign(cᵀX) */
function across(c: Float64Array, x: Matrix, y: Matrix) {
  let [signed, square] = [0, 0];
  const signs = new Float64Array(x.columns);
  for (let j = 0; j < x.columns; j++) {
    let [a, b] = [0, 0];
    for (let i = 0; i < c.length; i++) {
      a += c[i]! * x.get(i, j);
      b += c[i]! * y.get(i, j);
    }
    signs[j] = Math.sign(a);
    signed += signs[j]! * b;
    square += b * b;
  }
  return { signed, square, signs };
}

/**
 * The directions of G in the range Q[d_in, k], the strongest first, from QᵀG[k, d_out] on two halves of the data. The gain
 * is taken from one half and counted on the other, both ways: for noise it is 0 on average.
 *   gain(u) = √2·Σ_j sign(uᵀG₁)_j·(uᵀG₂)_j,  K = √2·u as Kaiming's norm at a = 0
 */
export function directionsOf(Q: Matrix, first: Rows, second: Rows): readonly Direction[] {
  if (Q.columns === 0) return [];
  // a probe is padded to q columns; those beyond the range are zero
  const part = (rows: Rows) => matrix(rows).subMatrix(0, Q.columns - 1, 0, rows.shape[1] - 1);
  const [one, two] = [part(first), part(second)];
  const both = Matrix.mul(Matrix.add(one, two), 0.5);
  const [ofBoth, ofOne, ofTwo] = [leftOf(both), leftOf(one), leftOf(two)];
  const most = [ofOne.values[0]! ** 2, ofTwo.values[0]! ** 2];
  return Array.from({ length: Math.min(Q.columns, one.columns) }, (_, k) => {
    const [c1, c2] = [rowOf(ofOne.vectors, k), rowOf(ofTwo.vectors, k)];
    const [forth, back] = [across(c1, one, two), across(c2, two, one)];
    const shares = [forth.square / most[1]!, back.square / most[0]!].filter(Number.isFinite);
    const inQ = (c: Float64Array) => Float64Array.from(Q.mmul(Matrix.columnVector(c)).to1DArray());
    return {
      u: inQ(rowOf(ofBoth.vectors, k)),
      sigma: ofBoth.values[k]!,
      gain: (Math.SQRT2 * (forth.signed + back.signed)) / 2,
      caught: shares.reduce((a, b) => a + b, 0) / Math.max(1, shares.length),
      halves: [
        { u: inQ(c1), c: c1, signs: forth.signs },
        { u: inQ(c2), c: c2, signs: back.signs },
      ],
    };
  });
}
