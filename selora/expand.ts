/** Growing a rank: [A | K], [B ; 0]. The product A·B, and with it the model's output, is unchanged to the bit. */
import { concat, type Tensor, tensor, zeros } from '../core/index.ts';
import { type Adapter, foldKey, type HostKey, type KaimingGain, kaimingUniform, keyText } from './adapter.ts';

/** The candidate column of one test: drawn afresh per test and module from fold(seed key, path, step). */
export function candidate(
  key: HostKey,
  path: string,
  step: number,
  dIn: number,
  gain: KaimingGain,
): { readonly K: Tensor; readonly key: string } {
  const k = foldKey(key, 'candidate', path, step);
  return { K: tensor(kaimingUniform(k, dIn, dIn, gain), [dIn, 1]), key: keyText(k) };
}
/**
 * eq. 2: A[d_in, r], B[r, d_out], K[d_in, 1] → A' = [A | K], B' = [B ; 0] of rank r + 1.
 * Zero on both sides would leave the new rank dead for ever: each side's gradient has the other as a factor.
 */
export const expandAdapter = ({ A, B }: Adapter, K: Tensor): Adapter => ({
  A: concat([A, K], 1),
  B: concat([B, zeros([1, B.shape[1]!], B.dtype)], 0),
});
