/** LoRA-GA: a LoRA that begins along the singular vectors of the first gradient. */
import { z } from 'zod';
import { add, asFloat, sub, type Tensor, tensor, zeros } from '../../core/index.ts';
import type { Adapter } from '../adapter.ts';
import { deltaWeight } from '../merge.ts';
import { startBatches } from './fisher-ranks.ts';
import { leading } from './leading.ts';
import { inputsOf, lowRank, ranksAtStart } from './low-rank.ts';
import { Field, type HostTensor, type MethodOf } from './method.ts';
import { gainA, rank, ranks, scale, told } from './settings.ts';
import { cannotBegin, matrixOf, refuseKnown, withMatrix } from './weights.ts';

const settings = {
  rank,
  ranks,
  scale,
  gainA,
  startBatches,
  gaGamma: told(z.number().gt(0).max(1e6).default(16), {
    group: 'Model and adapters',
    value: 'gamma',
    help: 'lora-ga: A and B begin with columns and rows of length (d_out)^¼/√gamma',
  }),
};
type P = Adapter & { readonly A0: Tensor; readonly B0: Tensor };

/**
 * A[d_in, r] and B[r, d_out] from G[d_out, d_in] = U·diag(σ)·Vᵀ: columns v₁ … v_r of V and rows u_{r+1} … u_{2r} of U, each times
 * (d_out)^¼/√γ. A layer whose smaller side is below 2r begins its count of U again at u₁.
 */
export function alongGradient(gradient: HostTensor, rank: number, gamma: number) {
  const [dOut, dIn] = gradient.shape as [number, number];
  const { U, V } = leading(gradient, 2 * rank);
  const size = dOut ** 0.25 / Math.sqrt(gamma);
  const side = Math.min(dOut, dIn);
  const A = Float32Array.from({ length: dIn * rank }, (_, i) => size * V.get(Math.floor(i / rank), (i % rank) % side));
  const B = Float32Array.from(
    { length: rank * dOut },
    (_, i) => size * U.get(i % dOut, (rank + Math.floor(i / dOut)) % side),
  );
  return { A: { shape: [dIn, rank], data: A }, B: { shape: [rank, dOut], data: B } };
}

/**
 * The method `lora-ga`: W = W0 + s·(A·B − A₀·B₀)ᵀ, A = A₀ and B = B₀ at the start along the gradient G of the first batches, so that
 * the first step of A·B is near to that of W. A₀ and B₀ are kept; a file has twice the rank.
 * Source: Wang et al., LoRA-GA: Low-Rank Adaptation with Gradient Approximation (2024), eq. 9 and 12, the authors' `ArB2r`
 * and `stable`; there s = α/√r.
 */
export const loraGa: MethodOf<typeof settings, P> = {
  name: 'lora-ga',
  doc: 'LoRA-GA: LoRA begun along the singular vectors of the first gradient',
  source: 'Wang et al., LoRA-GA: Low-Rank Adaptation with Gradient Approximation (2024), eq. 9 and 12',
  settings,
  leastRank: () => 1,
  ranks(c, places, known) {
    refuseKnown('lora-ga', known);
    return ranksAtStart(c, places);
  },
  label: (c) => `LoRA-GA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, _most, own) => Math.max(1, own),
  fields: (place, rank) => ({
    ...lowRank.fields(place, rank),
    A0: new Field([inputsOf(place), rank], 1, false),
    B0: new Field([rank, place[0]], 0, false),
  }),
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      Object.entries(lowRank.init(places, ranks, key, c)).map(([path, adapter]) => [
        path,
        { ...adapter, A0: zeros(adapter.A.shape), B0: zeros(adapter.B.shape) },
      ]),
    ),
  begin: {
    batches: (c) => c.startBatches,
    keep: ({ gradient, rank }, c) => alongGradient(gradient, rank, c.gaGamma),
    module(kept) {
      const { A, B } = kept as ReturnType<typeof alongGradient>;
      const [a, b] = [tensor(A.data, A.shape), tensor(B.data, B.shape)];
      return { A: a, B: b, A0: a, B0: b };
    },
  },
  attach(module, { A, B, A0, B0 }, c) {
    const change = sub(deltaWeight({ A, B }, c.scale), deltaWeight({ A: A0, B: B0 }, c.scale));
    return withMatrix(module, add(matrixOf(asFloat(module.weight)), change));
  },
  toFile({ rank, fields: { A, B, A0, B0 } }, place, c) {
    const dIn = inputsOf(place);
    const wide = (i: number) =>
      [A!, A0!][Math.floor((i % (2 * rank)) / rank)]!.data[Math.floor(i / (2 * rank)) * rank + (i % rank)]!;
    const both = {
      A: { shape: [dIn, 2 * rank], data: Float32Array.from({ length: dIn * 2 * rank }, (_, i) => wide(i)) },
      B: { shape: [2 * rank, place[0]], data: Float32Array.from([...B!.data, ...B0!.data.map((x) => -x)]) },
    };
    return lowRank.toFile({ rank: 2 * rank, fields: both }, place, c);
  },
  fromFile: cannotBegin('lora-ga'),
};
