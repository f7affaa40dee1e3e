/**
 * Normalisation layers with affine parameters. Forward ops also return the statistics their closed-form backward reads.
 * Both are one composite each, differentiated by a second composite: x̂ = (x − μ)/σ, y = x̂·γ + β,
 *   dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ  with ĝ = g·γ.
 */
import { shapeError } from '../ir/errors.ts';
import { bindAll, type Composite, type Tensor } from '../ir/tensor.ts';
import { gcd } from '../ir/view.ts';
import { fold, unfold } from '../ops/batching.ts';
import { reshape } from '../ops/layout.ts';
import { add, mul, rsqrt, sigmoid, sub } from '../ops/math.ts';
import { mean, sum } from '../ops/reduce.ts';

/** [n, m, …] ↔ [n·m, …]: a mapped axis becomes more rows or pictures */

export interface LayerNormAttrs {
  readonly eps: number;
}
/** layerNorm: x[r, c], γ[c], β[c] → y[r, c], μ[r, 1], 1/σ[r, 1]  (torch.nn.LayerNorm: biased variance). */
export const layerNormOp: Composite<LayerNormAttrs> = {
  kind: 'composite',
  name: 'layerNorm',
  doc: 'normalisation over the last axis with scale and shift',
  formula: 'y = (x − μ)/√(var + ε)·γ + β',
  shape(inputs) {
    const [x, gamma, beta] = inputs;
    if (x!.shape.length !== 2 || [gamma!, beta!].some((p) => p.shape.length !== 1 || p.shape[0] !== x!.shape[1]))
      throw shapeError('layerNorm', inputs, 'operands must be x[r,c], γ[c], β[c]');
    const row = { shape: [x!.shape[0]!, 1], dtype: x!.dtype };
    return [{ shape: x!.shape, dtype: x!.dtype }, row, row];
  },
  body([x, gamma, beta], { eps }) {
    const mu = mean(x!, 1, true);
    const d = sub(x!, mu);
    const r = rsqrt(add(mean(mul(d, d), 1, true), eps));
    return [add(mul(mul(d, r), gamma!), beta!), mu, r];
  },
  vjp([g, gMu, gR], [x, gamma], _attrs, [, mu, r], wanted) {
    if (!g || gMu || gR) return undefined;
    const operands = [g, x!, gamma!, mu!, r!];
    if (wanted && !wanted[1] && !wanted[2]) return [bindAll(layerNormGradOp, operands, {})[0], undefined, undefined];
    const [dx, dgamma, dbeta] = bindAll(layerNormGradAllOp, operands, { blocks: gcd(x!.shape[0]!, 64) });
    return [dx, sum(dgamma!, 0), sum(dbeta!, 0)];
  },
  batch(size, [x, gamma, beta], [xMapped, gMapped, bMapped], a) {
    if (!xMapped || gMapped || bMapped) return undefined;
    return bindAll(layerNormOp, [fold(x!), gamma!, beta!], a).map((t) => unfold(t, size));
  },
  flops: ([x]) => 8 * x!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const c = pick(2, 5);
    return { operands: [{ shape: [pick(1, 4), c] }, { shape: [c] }, { shape: [c] }], attrs: { eps: 1e-5 } };
  },
};
/**
 * y = (x − μ)/√(var + ε)·γ + β over the last axis; all leading axes are rows (torch.nn.LayerNorm: biased variance).
 * @throws ShapeError when γ or β is not [c]. Cost: about 8 flop an element.
 * @example layerNorm(x, gamma, beta, 1e-5) // x[2,77,768], γ and β[768] → [2,77,768]
 */
export function layerNorm(x: Tensor, gamma: Tensor, beta: Tensor, eps: number): Tensor {
  const c = x.shape.at(-1)!;
  return reshape(bindAll(layerNormOp, [reshape(x, [-1, c]), gamma, beta], { eps })[0]!, x.shape);
}

/** layerNormGrad: cotangent of x in layerNorm     g[r,c], x[r,c], γ[c], μ[r,1], 1/σ[r,1] → dx[r,c]. */
export const layerNormGradOp: Composite<object> = {
  kind: 'composite',
  name: 'layerNormGrad',
  doc: 'derivative of layerNorm by its input',
  formula: 'dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ,  ĝ = g·γ',
  shape: ([, x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  body([g, x, gamma, mu, r]) {
    const xhat = mul(sub(x!, mu!), r!);
    const gh = mul(g!, gamma!);
    return [mul(sub(sub(gh, mean(gh, 1, true)), mul(xhat, mean(mul(gh, xhat), 1, true))), r!)];
  },
  batch(size, [g, x, gamma, mu, r], mapped, a) {
    if (mapped.join() !== 'true,true,false,true,true') return undefined;
    const operands = [fold(g!), fold(x!), gamma!, fold(mu!), fold(r!)];
    return bindAll(layerNormGradOp, operands, a).map((t) => unfold(t, size));
  },
  flops: ([, x]) => 10 * x!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const [r, c] = [pick(1, 4), pick(2, 5)];
    return {
      operands: [
        { shape: [r, c] },
        { shape: [r, c] },
        { shape: [c] },
        { shape: [r, 1] },
        { shape: [r, 1], range: [0.5, 2] },
      ],
      attrs: {},
    };
  },
};
/** layerNormGradAll: layerNormGrad and, of the same pass, the sums for γ and β: … → dx, dγ, dβ [blocks,c] of blocks of rows. */
export const layerNormGradAllOp: Composite<{ readonly blocks: number }> = {
  kind: 'composite',
  name: 'layerNormGradAll',
  doc: 'derivatives of layerNorm by input, scale and shift, the latter two per block of rows',
  formula: 'dx as layerNormGrad, dγ = Σ g·x̂, dβ = Σ g',
  shape(inputs, { blocks }) {
    const [rows, c] = inputs[1]!.shape as [number, number];
    if (rows % blocks !== 0) throw shapeError('layerNormGradAll', inputs, `${rows} rows do not divide into ${blocks}`);
    const sums = { shape: [blocks, c], dtype: inputs[1]!.dtype };
    return [{ shape: [rows, c], dtype: inputs[1]!.dtype }, sums, sums];
  },
  body(inputs, { blocks }) {
    const [g, x, , mu, r] = inputs;
    const perBlock = (t: Tensor): Tensor => sum(reshape(t, [blocks, -1, t.shape[1]!]), 1);
    const dx = bindAll(layerNormGradOp, inputs, {})[0]!;
    return [dx, perBlock(mul(g!, mul(sub(x!, mu!), r!))), perBlock(g!)];
  },
  batch(size, [g, x, gamma, mu, r], mapped, { blocks }) {
    if (mapped.join() !== 'true,true,false,true,true') return undefined;
    const operands = [fold(g!), fold(x!), gamma!, fold(mu!), fold(r!)];
    return bindAll(layerNormGradAllOp, operands, { blocks: size * blocks }).map((t) => unfold(t, size));
  },
  flops: ([, x]) => 13 * x!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const blocks = pick(1, 3);
    const [r, c] = [blocks * pick(1, 3), pick(2, 5)];
    const rows = { shape: [r, c] };
    return {
      operands: [rows, rows, { shape: [c] }, { shape: [r, 1] }, { shape: [r, 1], range: [0.5, 2] }],
      attrs: { blocks },
    };
  },
};

export interface GroupNormAttrs {
  readonly groups: number;
  readonly eps: number;
  /** apply SiLU to the result in the same pass */
  readonly silu: boolean;
}
type Four = [number, number, number, number];
const grouped = (x: Tensor, groups: number): Tensor => {
  const [n, h, w, c] = x.shape as Four;
  return reshape(x, [n, h * w, groups, c / groups]);
};
/** γ[c] → [1, 1, G, c/G] */
const perChannel = (p: Tensor, groups: number): Tensor => reshape(p, [1, 1, groups, p.shape[0]! / groups]);
const siluGrad = (y: Tensor): Tensor => {
  const s = sigmoid(y);
  return mul(s, add(mul(y, sub(1, s)), 1));
};

/** groupNorm: x[n,h,w,c], γ[c], β[c] → y[n,h,w,c], μ[n,1,G,1], 1/σ[n,1,G,1]  (torch.nn.GroupNorm, channels last). */
export const groupNormOp: Composite<GroupNormAttrs> = {
  kind: 'composite',
  name: 'groupNorm',
  doc: 'normalisation over pictures and groups of channels, scale and shift, optionally SiLU',
  formula: 'y = act((x − μ_g)/√(var_g + ε)·γ + β)',
  shape(inputs, { groups }) {
    const [x, gamma, beta] = inputs;
    const c = x!.shape[3];
    if (x!.shape.length !== 4 || [gamma!, beta!].some((p) => p.shape.length !== 1 || p.shape[0] !== c))
      throw shapeError('groupNorm', inputs, 'operands must be x[n,h,w,c], γ[c], β[c]');
    if (c! % groups !== 0) throw shapeError('groupNorm', inputs, `${c} channels do not divide into ${groups} groups`);
    const stat = { shape: [x!.shape[0]!, 1, groups, 1], dtype: x!.dtype };
    return [{ shape: x!.shape, dtype: x!.dtype }, stat, stat];
  },
  body([x, gamma, beta], { groups, eps, silu }) {
    const xg = grouped(x!, groups);
    const mu = mean(xg, [1, 3], true);
    const d = sub(xg, mu);
    const r = rsqrt(add(mean(mul(d, d), [1, 3], true), eps));
    const y = add(mul(mul(d, r), perChannel(gamma!, groups)), perChannel(beta!, groups));
    return [reshape(silu ? mul(y, sigmoid(y)) : y, x!.shape), mu, r];
  },
  vjp([g, gMu, gR], [x, gamma, beta], a, [, mu, r], wanted) {
    if (!g || gMu || gR) return undefined;
    const operands = [g, x!, gamma!, beta!, mu!, r!];
    if (wanted && !wanted[1] && !wanted[2]) return [bindAll(groupNormGradOp, operands, a)[0], undefined, undefined];
    const [dx, dgamma, dbeta] = bindAll(groupNormGradAllOp, operands, a);
    return [dx, sum(dgamma!, 0), sum(dbeta!, 0)];
  },
  batch(size, [x, gamma, beta], [xMapped, gMapped, bMapped], a) {
    if (!xMapped || gMapped || bMapped) return undefined;
    return bindAll(groupNormOp, [fold(x!), gamma!, beta!], a).map((t) => unfold(t, size));
  },
  flops: ([x]) => 10 * x!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const groups = pick(1, 3);
    const c = groups * pick(1, 2);
    return {
      operands: [{ shape: [pick(1, 2), pick(2, 3), pick(1, 3), c] }, { shape: [c] }, { shape: [c] }],
      attrs: { groups, eps: 1e-5, silu: pick(0, 1) === 1 },
    };
  },
};

/**
 * y = (x − μ_g)/√(var_g + ε)·γ + β over each picture and group of channels, then SiLU where asked (torch.nn.GroupNorm).
 * @throws ShapeError when γ or β is not [c], or c does not divide into groups. Cost: about 10 flop an element.
 * @example groupNorm(x, gamma, beta, { groups: 32, eps: 1e-5, silu: true }) // x[2,28,28,320] → [2,28,28,320]
 */
export const groupNorm = (x: Tensor, gamma: Tensor, beta: Tensor, a: GroupNormAttrs): Tensor =>
  bindAll(groupNormOp, [x, gamma, beta], a)[0]!;

/** groupNormGrad: cotangent of x in groupNorm     g, x [n,h,w,c], γ, β [c], μ, 1/σ [n,1,G,1] → dx. */
export const groupNormGradOp: Composite<GroupNormAttrs> = {
  kind: 'composite',
  name: 'groupNormGrad',
  doc: 'derivative of groupNorm (and its SiLU) by its input',
  formula: 'dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ,  ĝ = g·act′(y)·γ',
  shape: ([, x]) => [{ shape: x!.shape, dtype: x!.dtype }],
  body([g, x, gamma, beta, mu, r], { groups, silu }) {
    const xhat = mul(sub(grouped(x!, groups), mu!), r!);
    let gh = grouped(g!, groups);
    if (silu) gh = mul(gh, siluGrad(add(mul(xhat, perChannel(gamma!, groups)), perChannel(beta!, groups))));
    gh = mul(gh, perChannel(gamma!, groups));
    const dx = mul(sub(sub(gh, mean(gh, [1, 3], true)), mul(xhat, mean(mul(gh, xhat), [1, 3], true))), r!);
    return [reshape(dx, x!.shape)];
  },
  batch(size, [g, x, gamma, beta, mu, r], mapped, a) {
    if (mapped.join() !== 'true,true,false,false,true,true') return undefined;
    const [dx] = bindAll(groupNormGradOp, [fold(g!), fold(x!), gamma!, beta!, fold(mu!), fold(r!)], a);
    return [unfold(dx!, size)];
  },
  flops: ([, x]) => 14 * x!.shape.reduce((p, n) => p * n, 1),
  sample(pick) {
    const groups = pick(1, 3);
    const c = groups * pick(1, 2);
    const x = [pick(1, 2), pick(2, 3), pick(1, 3), c];
    const stat = [x[0]!, 1, groups, 1];
    return {
      operands: [
        { shape: x },
        { shape: x },
        { shape: [c] },
        { shape: [c] },
        { shape: stat },
        { shape: stat, range: [0.5, 2] },
      ],
      attrs: { groups, eps: 1e-5, silu: pick(0, 1) === 1 },
    };
  },
};

/** groupNormGradAll: groupNormGrad and, of the same pass, the sums for γ and β: … → dx, dγ[n,c], dβ[n,c] of each picture. */
export const groupNormGradAllOp: Composite<GroupNormAttrs> = {
  kind: 'composite',
  name: 'groupNormGradAll',
  doc: 'derivatives of groupNorm (and its SiLU) by input, scale and shift, the latter two per picture',
  formula: 'dx as groupNormGrad, dγ = Σ g·act′(y)·x̂, dβ = Σ g·act′(y)',
  shape([, x]) {
    const [n, , , c] = x!.shape as Four;
    const perPicture = { shape: [n, c], dtype: x!.dtype };
    return [{ shape: x!.shape, dtype: x!.dtype }, perPicture, perPicture];
  },
  body(inputs, a) {
    const [g, x, gamma, beta, mu, r] = inputs;
    const [n, , , c] = x!.shape as Four;
    const xhat = mul(sub(grouped(x!, a.groups), mu!), r!);
    let gy = grouped(g!, a.groups);
    if (a.silu) gy = mul(gy, siluGrad(add(mul(xhat, perChannel(gamma!, a.groups)), perChannel(beta!, a.groups))));
    const dx = bindAll(groupNormGradOp, inputs, a)[0]!;
    return [dx, reshape(sum(mul(gy, xhat), 1), [n, c]), reshape(sum(gy, 1), [n, c])];
  },
  batch(size, [g, x, gamma, beta, mu, r], mapped, a) {
    if (mapped.join() !== 'true,true,false,false,true,true') return undefined;
    const operands = [fold(g!), fold(x!), gamma!, beta!, fold(mu!), fold(r!)];
    return bindAll(groupNormGradAllOp, operands, a).map((t) => unfold(t, size));
  },
  flops: ([, x]) => 16 * x!.shape.reduce((p, n) => p * n, 1),
  sample: (pick) => groupNormGradOp.sample(pick),
};
