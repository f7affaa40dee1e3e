/** The strongest directions of a matrix on the host, without decomposing all of it where it is large. */
import { Matrix, QrDecomposition, SingularValueDecomposition } from 'ml-matrix';
import { foldKey, normalNumbers } from '../adapter.ts';
import type { HostTensor } from './method.ts';

/** a matrix whose smaller side is at most this is decomposed as it is */
const EXACT = 256;
/** as the authors of LoRA-GA ask of torch.svd_lowrank: twice the directions that are used, four iterations */
const [OVERSAMPLING, ITERATIONS] = [2, 4];

/** G[n, m]·X[m, q] */
function times({ shape, data }: HostTensor, X: Matrix): Matrix {
  const [n, m] = shape as [number, number];
  const q = X.columns;
  const flat = Float64Array.from({ length: m * q }, (_, i) => X.get(Math.floor(i / q), i % q));
  const out = new Float64Array(n * q);
  for (let i = 0; i < n; i++)
    for (let k = 0; k < m; k++) {
      const g = data[i * m + k]!;
      for (let j = 0; j < q; j++) out[i * q + j]! += g * flat[k * q + j]!;
    }
  return Matrix.from1DArray(n, q, out as unknown as number[]);
}
/** Gᵀ[m, n]·X[n, q] */
function transposedTimes({ shape, data }: HostTensor, X: Matrix): Matrix {
  const [n, m] = shape as [number, number];
  const q = X.columns;
  const out = new Float64Array(m * q);
  for (let i = 0; i < n; i++) {
    const row = X.getRow(i);
    for (let k = 0; k < m; k++) {
      const g = data[i * m + k]!;
      for (let j = 0; j < q; j++) out[k * q + j]! += g * row[j]!;
    }
  }
  return Matrix.from1DArray(m, q, out as unknown as number[]);
}
const basis = (X: Matrix): Matrix => new QrDecomposition(X).orthogonalMatrix;

/**
 * The k strongest left U[n, k] and right V[m, k] singular vectors of G[n, m], the strongest first; fewer where a side is
 * smaller. Above a side of 256 by subspace iteration in f64. Cost there: 40·k·n·m flop.
 * Source: Halko, Martinsson and Tropp, Finding Structure with Randomness (2011), algorithm 4.4.
 */
export function leading(G: HostTensor, k: number): { readonly U: Matrix; readonly V: Matrix } {
  const [n, m] = G.shape as [number, number];
  const side = Math.min(n, m);
  const few = Math.min(k, side);
  const first = (X: Matrix) => X.subMatrix(0, X.rows - 1, 0, few - 1);
  const q = Math.min(side, OVERSAMPLING * k);
  if (side <= EXACT) {
    const svd = new SingularValueDecomposition(Matrix.from1DArray(n, m, Array.from(G.data)), { autoTranspose: true });
    return { U: first(svd.leftSingularVectors), V: first(svd.rightSingularVectors) };
  }
  const drawn = normalNumbers(foldKey([0, 0], 'leading', n, m), m * q);
  let Q = basis(times(G, Matrix.from1DArray(m, q, Array.from(drawn))));
  for (let i = 0; i < ITERATIONS; i++) Q = basis(times(G, basis(transposedTimes(G, Q))));
  // Gᵀ·Q = V·Σ·Wᵀ, so that G is near to Q·W·Σ·Vᵀ
  const svd = new SingularValueDecomposition(transposedTimes(G, Q), { autoTranspose: true });
  return { U: first(Q.mmul(svd.rightSingularVectors)), V: first(svd.leftSingularVectors) };
}
