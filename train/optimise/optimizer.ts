/**
 * Adam and AdamW as pure functions on tensors. `age` is the number of updates an entry has had before this one: a scalar,
 * or one for each rank, so that a grown rank gets its own bias correction.
 */
import { add, div, maximum, minimum, mul, once, sqrt, sub, sum, type Tensor, tanh } from '../../core/index.ts';

export interface AdamOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** true: AdamW, the weight shrinks by lr·wd first; false: Adam, wd·p is added to the gradient */
  readonly decoupled: boolean;
}
/** the paper's setting (B.2) */
export const adamDefaults: AdamOptions = { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, decoupled: false };

/**
 * 1 − βᵗ for t ≥ 1 without cancellation, also for β near 1: 2T/(1 + T) with T = tanh(−½·t·ln β).
 * @example oneMinusPower(0.999, tensor(1)) // 0.001
 */
export function oneMinusPower(beta: number, t: Tensor): Tensor {
  const T = tanh(mul(t, -0.5 * Math.log(beta)));
  return div(mul(T, 2), add(T, 1));
}

export interface AdamState {
  readonly m: Tensor;
  readonly v: Tensor;
}
/** What one update reads at every number of a leaf. */
type Leaf = {
  readonly p: Tensor;
  readonly g: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
  /** lr/(1−β₁ᵗ) */
  readonly step: Tensor;
  /** √(1−β₂ᵗ) */
  readonly root: Tensor;
  /** lr·wd of AdamW */
  readonly decay?: Tensor;
};
type Moved = { readonly p: Tensor; readonly m: Tensor; readonly v: Tensor };
/** An update in two parts, each traced and lowered once for all leaves of a shape. */
interface Rule {
  /** what corrects for moments that began at 0: as many numbers as there are ages */
  readonly correction: (age: Tensor, lr: Tensor) => Pick<Leaf, 'step' | 'root'>;
  readonly move: (leaf: Leaf) => Moved;
}
const rules = new WeakMap<AdamOptions, Rule>();
function ruleOf(o: AdamOptions): Rule {
  const known = rules.get(o);
  if (known) return known;
  const correction: Rule['correction'] = (age, lr) => {
    const t = add(age, 1);
    return { step: div(lr, oneMinusPower(o.beta1, t)), root: sqrt(oneMinusPower(o.beta2, t)) };
  };
  const move: Rule['move'] = ({ p, g: gradient, m, v, step, root, decay }) => {
    const g = o.weightDecay !== 0 && !o.decoupled ? add(gradient, mul(p, o.weightDecay)) : gradient;
    const m1 = add(mul(m, o.beta1), mul(g, 1 - o.beta1));
    const v1 = add(mul(v, o.beta2), mul(mul(g, g), 1 - o.beta2));
    const scale = add(div(sqrt(v1), root), o.eps);
    const shrunk = decay ? sub(p, mul(p, decay)) : p;
    return { p: sub(shrunk, mul(step, div(m1, scale))), m: m1, v: v1 };
  };
  const rule: Rule = { correction: once(correction), move: once(move) };
  rules.set(o, rule);
  return rule;
}
/**
 * One update: m' = β₁m + (1−β₁)g, v' = β₂v + (1−β₂)g², p' = p − lr·m̂/(√v̂ + ε), m̂ = m'/(1−β₁ᵗ), v̂ = v'/(1−β₂ᵗ), t = age + 1.
 * `spread` lays numbers that belong to ages along p, where they do not broadcast by themselves: leaves that share their
 * ages share the correction, which is computed before it.
 * Source: Kingma & Ba 2015; torch.optim.Adam/AdamW.
 */
export function adamUpdate(
  p: Tensor,
  g: Tensor,
  { m, v }: AdamState,
  age: Tensor,
  lr: Tensor,
  o: AdamOptions,
  spread: (x: Tensor) => Tensor = (x) => x,
): Moved {
  const { correction, move } = ruleOf(o);
  const { step, root } = correction(age, lr);
  const decay = o.weightDecay !== 0 && o.decoupled ? { decay: mul(lr, o.weightDecay) } : {};
  return move({ p, g, m, v, step: spread(step), root: spread(root), ...decay });
}

const sumOfSquares = once((g: Tensor): Tensor => sum(mul(g, g)));
/** ‖g‖₂ over all tensors together. */
export const globalNorm = (gradients: readonly Tensor[]): Tensor =>
  sqrt(gradients.map((g) => sumOfSquares(g)).reduce((a, b) => add(a, b)));
/** The factor that brings ‖g‖ down to `limit`: min(1, limit/(‖g‖ + 1e-6)) (torch.nn.utils.clip_grad_norm_). */
export const clipFactor = (norm: Tensor, limit: number): Tensor =>
  minimum(div(limit, maximum(add(norm, 1e-6), 1e-12)), 1);
