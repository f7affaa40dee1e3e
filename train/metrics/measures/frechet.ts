/** Fréchet distance of two sets of feature vectors: FID where they are Inception's. */
import { Matrix, QrDecomposition, SingularValueDecomposition } from 'ml-matrix';

/** Feature vectors, one row each; all of one length. */
export type Features = readonly ArrayLike<number>[];

/** What is needed of a set: its mean and X/√(n − 1) with XᵀX/(n − 1) the covariance, at most d rows. */
export interface Moments {
  readonly n: number;
  readonly dims: number;
  readonly mean: Float64Array;
  /** a root of the covariance, S = rootᵀ·root */
  readonly root: Matrix;
  /** tr S */
  readonly trace: number;
}

/** @throws RangeError for fewer than two vectors or vectors of different lengths. Cost: n·d², or nothing where n ≤ d */
export function momentsOf(features: Features): Moments {
  const n = features.length;
  const dims = features[0]?.length ?? 0;
  if (n < 2 || dims === 0) throw new RangeError(`${n} feature vectors, expected two or more`);
  const mean = new Float64Array(dims);
  for (const f of features) {
    if (f.length !== dims) throw new RangeError(`feature vectors of ${dims} and ${f.length} numbers`);
    for (let j = 0; j < dims; j++) mean[j]! += f[j]! / n;
  }
  const scale = 1 / Math.sqrt(n - 1);
  const centred = new Matrix(n, dims);
  let trace = 0;
  for (const [i, f] of features.entries())
    for (let j = 0; j < dims; j++) {
      const x = (f[j]! - mean[j]!) * scale;
      centred.set(i, j, x);
      trace += x * x;
    }
  const root = n > dims ? new QrDecomposition(centred).upperTriangularMatrix : centred;
  return { n, dims, mean, root, trace };
}

/**
 * ‖m₁ − m₂‖² + tr S₁ + tr S₂ − 2·tr (S₁S₂)^½, covariances divided by n − 1. tr (S₁S₂)^½ is the sum of the singular values of
 * R₁·R₂ᵀ with Sᵢ = RᵢᵀRᵢ: no matrix is squared and no root taken of a rounded eigenvalue, so it is exact also where n ≤ d.
 * Source: Dowson and Landau 1982; Heusel et al. 2017 (FID).
 * @throws RangeError where the vectors differ in length
 * @example frechet(momentsOf(real), momentsOf(fake))
 */
export function frechet(a: Moments, b: Moments): number {
  if (a.dims !== b.dims) throw new RangeError(`features of ${a.dims} and ${b.dims} numbers`);
  let between = 0;
  for (let j = 0; j < a.dims; j++) between += (a.mean[j]! - b.mean[j]!) ** 2;
  const product = a.root.mmul(b.root.transpose());
  const tall = product.rows >= product.columns ? product : product.transpose();
  const { diagonal } = new SingularValueDecomposition(tall, {
    computeLeftSingularVectors: false,
    computeRightSingularVectors: false,
  });
  return Math.max(0, between + a.trace + b.trace - 2 * diagonal.reduce((s, x) => s + x, 0));
}
