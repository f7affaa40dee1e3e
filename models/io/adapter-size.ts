/** How much an adapter changes its model: norms of ΔW = s·A·B from the thin factors, never from ΔW itself. */
import { type AdapterModule, deltaWeight, transpose } from './adapter-file.ts';

export type AdapterSize = {
  /** ‖ΔW‖_F */
  readonly norm: number;
  /**
   * (Σσ²)²/Σσ⁴ of ΔW's singular values: how many ranks carry the change. From 1 (all in one direction) to the rank;
   * 0 where ΔW = 0.
   */
  readonly usedRanks: number;
};

/** Gram matrix of the columns of m[rows, r]: G[i, j] = Σ m[·, i]·m[·, j], in f64. */
function gram(at: (row: number, column: number) => number, rows: number, r: number): Float64Array {
  const g = new Float64Array(r * r);
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < r; i++) for (let j = i; j < r; j++) g[i * r + j] += at(row, i) * at(row, j);
  for (let i = 0; i < r; i++) for (let j = 0; j < i; j++) g[i * r + j] = g[j * r + i];
  return g;
}

/** The same ΔW as A = s·A·B, B = identity: rank d_out. */
function asProduct(adapter: AdapterModule): AdapterModule {
  const { dIn, dOut } = adapter;
  const B = new Float32Array(dOut * dOut);
  for (let i = 0; i < dOut; i++) B[i * dOut + i] = 1;
  const A = transpose(Float32Array.from(deltaWeight(adapter)), dOut, dIn);
  return { ...adapter, A, B, rank: dOut, scale: 1 };
}

/**
 * ‖s·A·B‖² = s²·tr(M) and Σσ⁴ = s⁴·tr(M²) with M = (AᵀA)(BBᵀ), an r×r matrix.
 * Cost: r²·(d_in + d_out) + r³ instead of d_in·d_out·r.
 */
export function sizeOfAdapter(adapter: AdapterModule): AdapterSize {
  const { A, B, rank: r, dIn, dOut, scale } = adapter;
  // More ranks than ΔW has rows and columns (only a strange file has): r×r could be far larger than the file.
  if (r > Math.max(dIn, dOut)) return sizeOfAdapter(asProduct(adapter));
  const ga = gram((row, i) => A[row * r + i], dIn, r);
  const gb = gram((row, i) => B[i * dOut + row], dOut, r);
  const m = new Float64Array(r * r);
  for (let i = 0; i < r; i++)
    for (let k = 0; k < r; k++) for (let j = 0; j < r; j++) m[i * r + j] += ga[i * r + k] * gb[k * r + j];
  let [squares, fourths] = [0, 0];
  for (let i = 0; i < r; i++) {
    squares += m[i * r + i];
    for (let j = 0; j < r; j++) fourths += m[i * r + j] * m[j * r + i];
  }
  // rounding can leave a tiny negative trace where ΔW is zero
  const norm = Math.abs(scale) * Math.sqrt(Math.max(0, squares));
  return { norm, usedRanks: fourths > 0 ? squares ** 2 / fourths : 0 };
}

/** ‖W‖_F, f64. */
export function frobenius(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] ** 2;
  return Math.sqrt(sum);
}
