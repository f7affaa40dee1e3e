/**
 * Normalisation with scale and shift: layerNorm and groupNorm are one composite, on x[n, …, c] with G groups of channels.
 * A set of statistics belongs to one n and one group; a row of layerNorm is a picture of one pixel and one group. The
 * forward op also returns the statistics, which its closed-form derivative, a second composite, reads:
 *   x̂ = (x − μ)/σ, y = x̂·γ + β,  dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ  with ĝ = g·act′(y)·γ.
 * Kernels leave out the results nobody reads.
 */
import { shapeError } from '../ir/errors.ts';
import { checkDtypes, checkWhole } from '../ir/rules.ts';
import {
  bindAll,
  type Composite,
  type OperandSample,
  type Pick as PickInteger,
  type Shape,
  type Tensor,
} from '../ir/tensor.ts';
import { gcd, same, sizeOf } from '../ir/view.ts';
import { fold, unfold } from '../ops/batching.ts';
import { reshape } from '../ops/layout.ts';
import { add, mul, rsqrt, sigmoid, sub } from '../ops/math.ts';
import { mean, sum } from '../ops/reduce.ts';

export interface NormAttrs {
  readonly groups: number;
  readonly eps: number;
  /** apply SiLU to the result in the same pass */
  readonly silu: boolean;
}
export interface NormGradAttrs {
  readonly groups: number;
  readonly silu: boolean;
  /** the sums for γ and β come in this many parts, each of n/blocks rows or pictures */
  readonly blocks: number;
}

/** x[n, …, c] → n, the pixels between, groups and channels of a group */
export const normSizes = (shape: Shape, groups: number) => ({
  n: shape[0]!,
  pixels: sizeOf(shape.slice(1, -1)),
  groups,
  width: shape.at(-1)! / groups,
});
/** layerNorm's case: every set of statistics is a row that lies together, and nothing follows */
export const isRows = (shape: Shape, { groups, silu }: Pick<NormAttrs, 'groups' | 'silu'>): boolean =>
  groups === 1 && !silu && normSizes(shape, 1).pixels === 1;
const grouped = (x: Tensor, groups: number): Tensor => {
  const { n, pixels, width } = normSizes(x.shape, groups);
  return reshape(x, [n, pixels, groups, width]);
};
/** γ[c] → [1, 1, G, c/G] */
const perChannel = (p: Tensor, groups: number): Tensor => reshape(p, [1, 1, groups, p.shape[0]! / groups]);
const siluGrad = (y: Tensor): Tensor => {
  const s = sigmoid(y);
  return mul(s, add(mul(y, sub(1, s)), 1));
};
const pickSizes = (pick: PickInteger) => {
  const groups = pick(1, 3);
  const c = groups * pick(1, 2);
  const shape = pick(0, 2) === 0 ? [pick(1, 4), c] : [pick(1, 2), pick(2, 3), pick(1, 3), c];
  return { shape, c, groups };
};

/** what x, γ and β must be: x of a rank that fits, γ and β one number per channel, channels that divide into groups */
function checkNorm(op: string, inputs: readonly Tensor[], fits: boolean, operands: string, groups: number): void {
  const [x, ...parameters] = inputs;
  const c = x!.shape.at(-1);
  if (!fits || parameters.some((p) => p.shape.length !== 1 || p.shape[0] !== c))
    throw shapeError(op, inputs, `operands must be ${operands}`);
  checkDtypes(op, inputs, 'float');
  checkWhole(op, inputs, 'groups', [groups], 1);
  if (c! % groups !== 0) throw shapeError(op, inputs, `${c} channels do not divide into ${groups} groups`);
}

/** norm: x[n, …, c], γ[c], β[c] → y[n, …, c], μ[n,1,G,1], 1/σ[n,1,G,1]  (biased variance, as torch.nn has it). */
export const normOp: Composite<NormAttrs> = {
  kind: 'composite',
  name: 'norm',
  aliases: ['layerNorm', 'groupNorm', 'instanceNorm'],
  doc: 'normalisation over pixels and groups of channels (layerNorm, groupNorm), scale and shift, optionally SiLU',
  formula: 'y = act((x − μ)/√(var + ε)·γ + β)',
  shape(inputs, { groups }) {
    const { shape, dtype } = inputs[0]!;
    checkNorm('norm', inputs, shape.length >= 2, 'x[n,…,c], γ[c], β[c]', groups);
    const stat = { shape: [shape[0]!, 1, groups, 1], dtype };
    return [{ shape, dtype }, stat, stat];
  },
  body([x, gamma, beta], { groups, eps, silu }) {
    const xg = grouped(x!, groups);
    const mu = mean(xg, [1, 3], true);
    const d = sub(xg, mu);
    const r = rsqrt(add(mean(mul(d, d), [1, 3], true), eps));
    const y = add(mul(mul(d, r), perChannel(gamma!, groups)), perChannel(beta!, groups));
    return [reshape(silu ? mul(y, sigmoid(y)) : y, x!.shape), mu, r];
  },
  vjp([g, gMu, gR], [x, gamma, beta], { groups, silu }, [, mu, r]) {
    if (!g || gMu || gR) return undefined;
    const n = x!.shape[0]!;
    // rows are short, so that many share a sum; the pictures of a batch are few
    const blocks = isRows(x!.shape, { groups, silu }) ? gcd(n, 64) : n;
    const operands = [g, x!, gamma!, mu!, r!, ...(silu ? [beta!] : [])];
    const [dx, dgamma, dbeta] = bindAll(normGradOp, operands, { groups, silu, blocks });
    return [dx, sum(dgamma!, 0), sum(dbeta!, 0)];
  },
  batch(size, [x, gamma, beta], [xMapped, gMapped, bMapped], a) {
    if (!xMapped || gMapped || bMapped) return undefined;
    return bindAll(normOp, [fold(x!), gamma!, beta!], a).map((t) => unfold(t, size));
  },
  flops: ([x], { silu }) => (silu ? 10 : 8) * sizeOf(x!.shape),
  sample(pick) {
    const { shape, c, groups } = pickSizes(pick);
    return {
      operands: [{ shape }, { shape: [c] }, { shape: [c] }],
      attrs: { groups, eps: 1e-5, silu: pick(0, 1) === 1 },
    };
  },
};

/**
 * normGrad: g, x [n, …, c], γ[c], μ, 1/σ [n,1,G,1], with a SiLU β[c] → dx[n, …, c], and dγ, dβ [blocks,c]: their sums over
 * the pixels of each block of rows or pictures.
 */
export const normGradOp: Composite<NormGradAttrs> = {
  kind: 'composite',
  name: 'normGrad',
  aliases: ['layerNormGrad', 'groupNormGrad'],
  doc: 'derivatives of norm (and its SiLU) by input, scale and shift, the latter two per block of rows or pictures',
  formula: 'dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ,  dγ = Σ g·act′(y)·x̂,  dβ = Σ g·act′(y);  ĝ = g·act′(y)·γ',
  shape(inputs, { groups, silu, blocks }) {
    const [g, x, gamma, mu, r, beta] = inputs as readonly [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor?];
    checkNorm('normGrad', beta ? [x, gamma, beta] : [x, gamma], x.shape.length >= 2, 'x[n,…,c], γ[c]', groups);
    checkDtypes('normGrad', inputs, 'float');
    const [n, c] = [x.shape[0]!, x.shape.at(-1)!];
    if (!same(g.shape, x.shape) || [mu, r].some(({ shape }) => !same(shape, [n, 1, groups, 1])))
      throw shapeError('normGrad', inputs, `operands must be g and x[n,…,c], γ[c], μ and 1/σ[n,1,${groups},1]`);
    if (!isRows(x.shape, { groups, silu }) && blocks !== n)
      throw shapeError('normGrad', inputs, `the sums of ${n} pictures are one each, not ${blocks}`);
    if (n > 0 && n % blocks !== 0)
      throw shapeError('normGrad', inputs, `${n} rows do not divide into ${blocks} blocks`);
    const sums = { shape: [blocks, c], dtype: x.dtype };
    return [{ shape: x.shape, dtype: x.dtype }, sums, sums];
  },
  body([g, x, gamma, mu, r, beta], { groups, silu, blocks }) {
    const { n, pixels } = normSizes(x!.shape, groups);
    const c = x!.shape.at(-1)!;
    const perBlock = (t: Tensor): Tensor => sum(reshape(t, [blocks, blocks && (n / blocks) * pixels, c]), 1);
    const xhat = mul(sub(grouped(x!, groups), mu!), r!);
    let gy = grouped(g!, groups);
    if (silu) gy = mul(gy, siluGrad(add(mul(xhat, perChannel(gamma!, groups)), perChannel(beta!, groups))));
    const gh = mul(gy, perChannel(gamma!, groups));
    const dx = mul(sub(sub(gh, mean(gh, [1, 3], true)), mul(xhat, mean(mul(gh, xhat), [1, 3], true))), r!);
    return [reshape(dx, x!.shape), perBlock(mul(gy, xhat)), perBlock(gy)];
  },
  batch(size, [g, x, gamma, mu, r, beta], mapped, a) {
    // γ and β belong to all samples, everything else to one
    if (mapped.some((m, i) => m === (i === 2 || i === 5))) return undefined;
    const operands = [fold(g!), fold(x!), gamma!, fold(mu!), fold(r!), ...(beta ? [beta] : [])];
    return bindAll(normGradOp, operands, { ...a, blocks: size * a.blocks }).map((t) => unfold(t, size));
  },
  flops: ([, x], { silu }) => (silu ? 14 : 10) * sizeOf(x!.shape),
  sample(pick) {
    const { shape, c, groups } = pickSizes(pick);
    const silu = pick(0, 1) === 1;
    const n = shape[0]!;
    const stat = [n, 1, groups, 1];
    const beta: OperandSample[] = silu ? [{ shape: [c] }] : [];
    return {
      operands: [{ shape }, { shape }, { shape: [c] }, { shape: stat }, { shape: stat, range: [0.5, 2] }, ...beta],
      attrs: { groups, silu, blocks: isRows(shape, { groups, silu }) ? gcd(n, pick(1, 4)) : n },
    };
  },
};

/**
 * y = (x − μ)/√(var + ε)·γ + β over the last axis; all leading axes are rows (torch.nn.LayerNorm: biased variance).
 * @throws ShapeError when γ or β is not [c]. Cost: about 8 flop an element.
 * @example layerNorm(x, gamma, beta, 1e-5) // x[2,77,768], γ and β[768] → [2,77,768]
 */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, eps: number): Tensor {
  const operands = 'x[r,c], γ[c], β[c] (all leading axes are rows)';
  checkNorm('layerNorm', [x, gamma, beta], x.shape.length > 0, operands, 1);
  const rows = reshape(x, [sizeOf(x.shape.slice(0, -1)), x.shape.at(-1)!]);
  return reshape(bindAll(normOp, [rows, gamma, beta], { groups: 1, eps, silu: false })[0]!, x.shape);
}

/**
 * y = (x − μ_g)/√(var_g + ε)·γ + β over each picture and group of channels, then SiLU where asked (torch.nn.GroupNorm).
 * @throws ShapeError when γ or β is not [c], or c does not divide into groups. Cost: about 10 flop an element.
 * @example groupNorm(x, gamma, beta, { groups: 32, eps: 1e-5, silu: true }) // x[2,28,28,320] → [2,28,28,320]
 */
export function groupNorm(x: Tensor, gamma: Tensor, beta: Tensor, a: NormAttrs): Tensor {
  const inputs = [x, gamma, beta];
  checkNorm('groupNorm', inputs, x.shape.length === 4, 'x[n,h,w,c], γ[c], β[c]', a.groups);
  return bindAll(normOp, inputs, a)[0]!;
}
