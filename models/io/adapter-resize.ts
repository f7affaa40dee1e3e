/** An adapter at another rank: the closest one there is (truncated singular value decomposition of ΔW). */
import { Matrix, QrDecomposition, SingularValueDecomposition } from 'ml-matrix';
import type { AdapterFile, AdapterModule } from './adapter-file.ts';

/** A module at another rank and how much of it is left. */
export type ResizedModule = {
  /** the module at the new rank */
  readonly module: AdapterModule;
  /** ‖ΔW after‖² / ‖ΔW before‖²; 1 where ΔW is zero */
  readonly kept: number;
};

/**
 * Every module at rank `rank`: higher ranks lose their smallest singular values, lower ones get zeros.
 * @returns the adapter and, by module, the share of ‖ΔW‖² that is left
 * @example const { adapter, kept } = resizeRank(await readAdapter('run/adapter.safetensors'), 4)
 */
export function resizeRank(
  adapter: AdapterFile,
  rank: number,
): { readonly adapter: AdapterFile; readonly kept: ReadonlyMap<string, number> } {
  const resized = new Map([...adapter.modules].map(([name, module]) => [name, resizeModule(module, rank)]));
  return {
    adapter: { ...adapter, modules: new Map([...resized].map(([name, { module }]) => [name, module])) },
    kept: new Map([...resized].map(([name, { kept }]) => [name, kept])),
  };
}

/**
 * A·B[d_in, d_out] of rank r → A'[d_in, k]·B'[k, d_out], the product of rank k that is closest to it in ‖·‖_F (Eckart and
 * Young). From the thin factors: A = Q_a·R_a, Bᵀ = Q_b·R_b, R_a·R_bᵀ = U·Σ·Vᵀ; A' = Q_a·U·√Σ, B' = √Σ·Vᵀ·Q_bᵀ, so that
 * both halves carry the same norm. The scale stays. Cost: r²·(d_in + d_out) + r³.
 */
export function resizeModule(module: AdapterModule, rank: number): ResizedModule {
  const { dIn, dOut } = module;
  const a = thin(Matrix.from1DArray(dIn, module.rank, module.A));
  const b = thin(Matrix.from1DArray(module.rank, dOut, module.B).transpose());
  const core = new SingularValueDecomposition(a.R.mmul(b.R.transpose()), { autoTranspose: true });
  const order = core.diagonal.map((_, i) => i).sort((i, j) => core.diagonal[j] - core.diagonal[i]);
  const chosen = order.slice(0, rank);
  const roots = (columns: Matrix): Matrix =>
    columns.subMatrixColumn(chosen).mulRowVector(chosen.map((i) => Math.sqrt(core.diagonal[i])));
  const left = a.Q.mmul(roots(core.leftSingularVectors));
  const right = b.Q.mmul(roots(core.rightSingularVectors));
  const [A, B] = [new Float32Array(dIn * rank), new Float32Array(rank * dOut)];
  for (let r = 0; r < chosen.length; r++) {
    for (let i = 0; i < dIn; i++) A[i * rank + r] = left.get(i, r);
    for (let o = 0; o < dOut; o++) B[r * dOut + o] = right.get(o, r);
  }
  const energy = (of: readonly number[]) => of.reduce((sum, i) => sum + core.diagonal[i] ** 2, 0);
  const whole = energy(order);
  return { module: { ...module, A, B, rank }, kept: whole === 0 ? 1 : energy(chosen) / whole };
}

/** M[m, n] = Q[m, k]·R[k, n] with orthonormal columns of Q, k = min(m, n). */
function thin(m: Matrix): { readonly Q: Matrix; readonly R: Matrix } {
  if (m.rows <= m.columns) return { Q: Matrix.eye(m.rows), R: m };
  const qr = new QrDecomposition(m);
  return { Q: qr.orthogonalMatrix, R: qr.upperTriangularMatrix };
}
