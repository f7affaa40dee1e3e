/** OFT: the outputs of a layer turned in blocks; angles and lengths between neurons stay as they are. */
import { z } from 'zod';
import { add, asFloat, eye, inv, matmul, reshape, sub, swap, type Tensor, zeros } from '../../core/index.ts';
import { factorization } from './lokr.ts';
import { inputsOf } from './low-rank.ts';
import { Field, type MethodOf, type Place } from './method.ts';
import { told } from './settings.ts';
import { cannotBegin, fullModule, matrixOf, withMatrix, withoutRanks } from './weights.ts';

const settings = {
  oftBlock: told(z.int().min(2).max(64).default(4), {
    group: 'Model and adapters',
    value: 'n',
    help: 'oft: outputs that are turned together, a divisor of their number or the next smaller one',
  }),
};
type Blocked = { readonly oftBlock: number };
/** [how many, of what side] */
function blocks([dOut]: Place, { oftBlock }: Blocked): readonly [number, number] {
  const [side, n] = factorization(dOut, oftBlock);
  return [n, side];
}

/** R = (1 + Q)(1 − Q)⁻¹ with Q = X − Xᵀ, of blocks [n, k, k]. */
function rotation(X: Tensor): Tensor {
  const [n, k] = X.shape as [number, number, number];
  const Q = sub(X, swap(X));
  const one = add(reshape(eye(k, { dtype: X.dtype }), [1, k, k]), zeros([n, 1, 1], X.dtype));
  return matmul(add(one, Q), inv(sub(one, Q)));
}
/** The same on the host, in f64; Gauss-Jordan without pivots, which 1 − Q never needs: its minors are all positive. */
function turned(X: Float32Array, k: number, block: number): Float64Array {
  const q = (i: number, j: number) => X[block * k * k + i * k + j]! - X[block * k * k + j * k + i]!;
  const m = Array.from({ length: k }, (_, i) =>
    Array.from({ length: 2 * k }, (_, j) => (j < k ? (i === j ? 1 : 0) - q(i, j) : i === j - k ? 1 : 0)),
  );
  for (let p = 0; p < k; p++) {
    const pivot = m[p]!.map((x) => x / m[p]![p]!);
    m[p] = pivot;
    for (let i = 0; i < k; i++) {
      if (i === p) continue;
      const f = m[i]![p]!;
      m[i] = m[i]!.map((x, j) => x - f * pivot[j]!);
    }
  }
  return Float64Array.from({ length: k * k }, (_, at) => {
    const [i, j] = [Math.floor(at / k), at % k];
    let s = 0;
    for (let l = 0; l < k; l++) s += ((i === l ? 1 : 0) + q(i, l)) * m[l]![k + j]!;
    return s;
  });
}

/**
 * The method `oft`: W = Rᵀ·W0, R block-diagonal with blocks (1 + Q)(1 − Q)⁻¹, Q = X − Xᵀ, X = 0 at the start (Cayley). R
 * is orthogonal, so WᵀW = W0ᵀW0.
 * Source: Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning (2023), eq. 3 and section 4; LyCORIS
 * `modules/diag_oft.py`.
 */
export const oft: MethodOf<typeof settings, { readonly X: Tensor }> = {
  name: 'oft',
  doc: 'OFT: outputs turned by orthogonal blocks',
  source: 'Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning (2023), eq. 3 and section 4',
  settings,
  leastRank: () => 1,
  ranks: withoutRanks('oft'),
  label: (c) => `OFT ${c.oftBlock}×${c.oftBlock}`,
  facts: () => ({ lambda: null, testEvery: null, scale: 1, initA: 0 }),
  room: (_c, most) => Math.max(1, most),
  fields(place, _rank, c) {
    const [n, k] = blocks(place, c);
    return { X: new Field([n, k, k]) };
  },
  init: (places, _ranks, _key, c) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const [n, k] = blocks(place, c);
        return [path, { X: zeros([n, k, k]) }];
      }),
    ),
  attach(module, { X }) {
    const [n, k] = X.shape as [number, number, number];
    const matrix = matrixOf(asFloat(module.weight));
    const [dOut, dIn] = matrix.shape as [number, number];
    const rows = matmul(swap(rotation(X)), reshape(matrix, [n, k, dIn]));
    return withMatrix(module, reshape(rows, [dOut, dIn]));
  },
  needsWeight: true,
  toFile({ fields }, place, _c, weight) {
    const { data, shape } = fields.X!;
    const [n, k] = shape as [number, number, number];
    const dIn = inputsOf(place);
    const delta = Float64Array.from(weight!, (w) => -w);
    for (let block = 0; block < n; block++) {
      const R = turned(data, k, block);
      for (let i = 0; i < k; i++)
        for (let j = 0; j < k; j++)
          for (let x = 0; x < dIn; x++)
            delta[(block * k + j) * dIn + x]! += R[i * k + j]! * weight![(block * k + i) * dIn + x]!;
    }
    return fullModule(delta, place);
  },
  toLycoris: ({ fields }) => ({ oft_blocks: fields.X!, alpha: { shape: [], data: Float32Array.of(0) } }),
  fromFile: cannotBegin('oft'),
};
