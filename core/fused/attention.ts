/**
 * Scaled dot-product attention over heads that lie side by side in the last axis, so that no head is ever copied out.
 * The forward op also returns the log-sum-exp of each row; the backward op recomputes the scores from it: no backend
 * with a kernel stores an m×n matrix (Dao et al. 2022, FlashAttention).
 */
import { shapeError } from '../ir/errors.ts';
import { checkDtypes, checkWhole } from '../ir/rules.ts';
import { bindAll, type Composite, type Tensor } from '../ir/tensor.ts';
import { fold, mapAll, unfold } from '../ops/batching.ts';
import { dot } from '../ops/dot.ts';
import { iota } from '../ops/fill.ts';
import { permute, reshape, swap } from '../ops/layout.ts';
import { add, exp, less, log, maximum, mul, select, sub } from '../ops/math.ts';
import { max, sum } from '../ops/reduce.ts';

export interface AttentionAttrs {
  readonly heads: number;
  readonly scale: number;
  /** row i sees columns ≤ i only */
  readonly causal: boolean;
}
/** [b,m,h·d] → [b·h,m,d] */
const splitHeads = (x: Tensor, heads: number): Tensor => {
  const [b, m, c] = x.shape as [number, number, number];
  return reshape(permute(reshape(x, [b, m, heads, c / heads]), [0, 2, 1, 3]), [b * heads, m, c / heads]);
};
/** [b·h,m,d] → [b,m,h·d] */
const mergeHeads = (x: Tensor, heads: number): Tensor => {
  const [bh, m, d] = x.shape as [number, number, number];
  return reshape(permute(reshape(x, [bh / heads, heads, m, d]), [0, 2, 1, 3]), [bh / heads, m, heads * d]);
};
/** scores s[b·h,m,n] = scale·q·kᵀ */
const scores = (q: Tensor, k: Tensor, a: AttentionAttrs): Tensor =>
  mul(dot(splitHeads(q, a.heads), swap(splitHeads(k, a.heads))), a.scale);
/** s with another value where the mask hides it */
function masked(s: Tensor, value: number, { causal }: AttentionAttrs): Tensor {
  if (!causal) return s;
  const hidden = less(iota(s.shape, 1, 'i32'), iota(s.shape, 2, 'i32'));
  return select(hidden, value, s);
}
/** below every score, and so far that −∞ less this is −∞ */
const LEAST = -3e38;

/**
 * attention: q[b,m,h·d], k[b,n,h·d], v[b,n,h·d] → o[b,m,h·d], lse[b·h,m,1]. @throws ShapeError. cost 4·b·m·n·h·d flop
 * Without keys o is 0. A row whose visible scores are all −∞ is NaN, and so are derivatives by it and what it sees; what the
 * mask hides from it is not touched. lse is −∞ in both cases.
 */
export const attentionOp: Composite<AttentionAttrs> = {
  kind: 'composite',
  name: 'attention',
  doc: 'scaled dot-product attention, heads side by side in the last axis; 0 without keys, NaN where all visible scores are −∞',
  formula: 'o = softmax(scale·q·kᵀ)·v per head,  lse = log Σ e^(scale·q·kᵀ)',
  shape(inputs, { heads }) {
    const [q, k, v] = inputs;
    const ok =
      inputs.every((x) => x.shape.length === 3) &&
      q!.shape[0] === k!.shape[0] &&
      k!.shape[0] === v!.shape[0] &&
      q!.shape[2] === k!.shape[2] &&
      k!.shape[1] === v!.shape[1] &&
      k!.shape[2] === v!.shape[2];
    if (!ok) throw shapeError('attention', inputs, 'operands must be q[b,m,c], k[b,n,c], v[b,n,c]');
    checkDtypes('attention', inputs, 'float');
    checkWhole('attention', inputs, 'heads', [heads], 1);
    const [b, m, c] = q!.shape as [number, number, number];
    if (c % heads !== 0) throw shapeError('attention', inputs, `${c} channels do not divide into ${heads} heads`);
    return [
      { shape: q!.shape, dtype: q!.dtype },
      { shape: [b * heads, m, 1], dtype: q!.dtype },
    ];
  },
  body([q, k, v], a) {
    const s = masked(scores(q!, k!, a), -1e30, a);
    const top = maximum(max(s, 2, true), LEAST);
    const e = masked(exp(sub(s, top)), 0, a);
    const total = sum(e, 2, true);
    const o = mergeHeads(dot(mul(e, exp(sub(0, log(total)))), splitHeads(v!, a.heads)), a.heads);
    return [o, add(top, log(total))];
  },
  vjp([g, gLse], [q, k, v], a, [o, lse]) {
    if (!g || gLse) return undefined;
    return bindAll(attentionGradOp, [g, q!, k!, v!, o!, lse!], a);
  },
  batch(size, inputs, mapped, a) {
    const [o, lse] = bindAll(attentionOp, mapAll(size, inputs, mapped).map(fold), a);
    return [unfold(o!, size), unfold(lse!, size)];
  },
  flops: ([q, k]) => 4 * q!.shape.reduce((p, n) => p * n, 1) * k!.shape[1]!,
  sample(pick) {
    const heads = pick(1, 2);
    const [b, m, n, c] = [pick(1, 2), pick(1, 4), pick(1, 4), heads * pick(1, 3)];
    return {
      operands: [{ shape: [b, m, c] }, { shape: [b, n, c] }, { shape: [b, n, c] }],
      attrs: { heads, scale: 0.7, causal: pick(0, 2) === 0 },
    };
  },
};

/** attentionGrad: g, q, o [b,m,h·d], k, v [b,n,h·d], lse[b·h,m,1] → dq, dk, dv. Scores are recomputed. cost 10·b·m·n·h·d flop */
export const attentionGradOp: Composite<AttentionAttrs> = {
  kind: 'composite',
  name: 'attentionGrad',
  doc: 'derivatives of attention by q, k and v',
  formula: 'p = e^(s − lse), ds = p·(g·vᵀ − Σ g·o);  dq = scale·ds·k, dk = scale·dsᵀ·q, dv = pᵀ·g',
  shape(inputs) {
    checkDtypes('attentionGrad', inputs, 'float');
    return inputs.slice(1, 4).map((x) => ({ shape: x.shape, dtype: x.dtype }));
  },
  body([g, q, k, v, o, lse], a) {
    const heads = (x: Tensor | undefined): Tensor => splitHeads(x!, a.heads);
    const [gh, qh, kh, vh, oh] = [heads(g), heads(q), heads(k), heads(v), heads(o)];
    const p = masked(exp(sub(scores(q!, k!, a), lse!)), 0, a);
    const ds = masked(mul(mul(p, sub(dot(gh, swap(vh)), sum(mul(gh, oh), 2, true))), a.scale), 0, a);
    return [dot(ds, kh), dot(swap(ds), qh), dot(swap(p), gh)].map((x) => mergeHeads(x, a.heads));
  },
  batch: (size, inputs, mapped, a) =>
    bindAll(attentionGradOp, mapAll(size, inputs, mapped).map(fold), a).map((x) => unfold(x, size)),
  flops: ([, q, k]) => 10 * q!.shape.reduce((p, n) => p * n, 1) * k!.shape[1]!,
  sample(pick) {
    const heads = pick(1, 2);
    const [b, m, n, c] = [pick(1, 2), pick(1, 4), pick(1, 4), heads * pick(1, 3)];
    const [x, y] = [{ shape: [b, m, c] }, { shape: [b, n, c] }];
    return {
      operands: [x, x, y, y, x, { shape: [b * heads, m, 1], range: [1, 3] }],
      attrs: { heads, scale: 0.7, causal: false },
    };
  },
};

/**
 * o = softmax(scale·q·kᵀ)·v for each head; scale defaults to 1/√d (Vaswani et al. 2017). `causal`: row i sees columns ≤ i.
 * @throws ShapeError when widths differ or do not divide into heads. Cost: 4·b·m·n·h·d flop.
 * @example attention(q, k, v, { heads: 8 }) // q[2,784,320], k and v[2,77,320] → [2,784,320]
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  a: { heads: number; causal?: boolean; scale?: number },
): Tensor {
  const scale = a.scale ?? 1 / Math.sqrt(q.shape[2]! / a.heads);
  return bindAll(attentionOp, [q, k, v], { heads: a.heads, scale, causal: a.causal ?? false })[0]!;
}
