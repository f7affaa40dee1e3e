/** norm of pictures (groupNorm, + SiLU) and its derivatives on x[n,…,c], in strips of whole groups of one picture. */
import type { NormAttrs, NormGradAttrs } from '../../../fused/norm.ts';
import { type Expr, type FunctionBuilder, f32, f32x4, f64, i32, type Local } from '../assembler/assemble.ts';
import { multiplyAdd, sigmoidF32x4, siluF32x4 } from '../assembler/vectorMath.ts';
import { type Kernel, type Plan, type Shapes, words } from '../kernel.ts';
import { alongRow } from '../loops/rows.ts';
import { unitNames, walkNames } from '../loops/walk.ts';
import { f32Bits } from '../machine/machine.ts';
import { clear, columns, numbersInGroup, perGroup, SHARED, spread, stripKernel, stripPlan } from './strips.ts';

type V = Local<'v128'>;

const forwardPointers = ['x', 'y', 'gamma', 'beta', 'mu', 'r'] as const;
const forwardWords = words([...unitNames, ...SHARED, 'eps', ...forwardPointers, ...walkNames('w', 2, forwardPointers)]);
const gradPointers = ['g', 'x', 'dx', 'gamma', 'beta', 'mu', 'r', 'dgamma', 'dbeta'] as const;
const gradWords = words([...unitNames, ...SHARED, ...gradPointers, ...walkNames('w', 2, gradPointers)]);

/** which results are wanted, in the op's order */
type Wanted = readonly [boolean, boolean, boolean];
const nameOf = (name: string, silu: boolean, wanted: Wanted, results: readonly string[]): string =>
  `${name}${silu ? ' silu' : ''}: ${results.filter((_, i) => wanted[i])}`;

const forwardKernel = (silu: boolean, wanted: Wanted): Kernel =>
  stripKernel(nameOf('picture norm', silu, wanted, ['y', 'mu', 'r']), forwardWords, forwardPointers, (strip) => {
    const [y, keepsMean, keepsScale] = wanted;
    const { f, m, at: p, array, channels } = strip;
    const [sum, mean, scale] = [array(0), array(1), array(2)];
    clear(strip, [sum]);
    columns(strip, 8, [p.x], [sum], (v, [s]) => {
      const total = f.let(v.loadPadded(s!));
      return {
        pixel: ([x]) => f.set(total, f32x4.add(total, v.load(x!))),
        end: () => f.emit(v.storePadded(s!, total)),
      };
    });
    perGroup(strip, [sum], ([total], group, first) => {
      const mu = f.let(f32.demote_f64(f64.div(total!, numbersInGroup(strip))));
      if (keepsMean) f.emit(f32.store(i32.add(p.mu, i32.shl(group, 2)), mu));
      spread(strip, mean, first, mu);
    });
    // a second pass for the variance, so that a large mean costs no digits
    clear(strip, [sum]);
    columns(strip, 4, [p.x], [sum, mean], (v, [s, mean]) => {
      const [total, mu] = [f.let(v.loadPadded(s!)), f.let(v.loadPadded(mean!))];
      return {
        pixel: ([x]) => {
          const d = f.let(f32x4.sub(v.load(x!), mu));
          f.set(total, multiplyAdd(d, d, total));
        },
        end: () => f.emit(v.storePadded(s!, total)),
      };
    });
    perGroup(strip, [sum], ([total], group, first) => {
      const eps = f64.promote_f32(f32.load(strip.args, forwardWords.at('eps')));
      const deviation = f64.sqrt(f64.add(f64.div(total!, numbersInGroup(strip)), eps));
      const r = f.let(f32.demote_f64(f64.div(1, deviation)));
      if (keepsScale) f.emit(f32.store(i32.add(p.r, i32.shl(group, 2)), r));
      spread(strip, scale, first, r);
    });
    if (!y) return;
    const [s, gamma] = [f.let(scale), f.let(p.gamma)];
    alongRow(f, m, 1, channels, [s, gamma], (v) => f.emit(v.storePadded(s, f32x4.mul(v.loadPadded(s), v.load(gamma)))));
    columns(strip, silu ? 2 : 4, [p.x, p.y], [mean, scale, p.beta], (v, [mean, scale, beta]) => {
      const [mu, k, b] = [f.let(v.loadPadded(mean!)), f.let(v.loadPadded(scale!)), f.let(v.load(beta!))];
      return {
        pixel: ([x, y]) => {
          const value = f.let(multiplyAdd(f32x4.sub(v.load(x!), mu), k, b));
          f.emit(v.store(y!, silu ? siluF32x4(f, value) : value));
        },
      };
    });
  });

/** d silu(y)/dy = s·(1 + y·(1 − s)) with s = sigmoid(y) */
const siluSlope = (f: FunctionBuilder, y: V): Expr<'v128'> => {
  const s = sigmoidF32x4(f, y);
  return f32x4.mul(s, multiplyAdd(y, f32x4.sub(1, s), f32x4.const(1, 1, 1, 1)));
};

/**
 * With g′ = g·act′(y), per channel of a picture dβ = Σ g′ and dγ = Σ g′·x̂, and from these, per group of N numbers,
 * dx = r·(g′·γ − Σ γ·dβ/N − x̂·Σ γ·dγ/N). dx holds g′ between the passes where there is a SiLU.
 */
const gradKernel = (silu: boolean, wanted: Wanted): Kernel =>
  stripKernel(
    nameOf('picture norm gradient', silu, wanted, ['dx', 'dgamma', 'dbeta']),
    gradWords,
    gradPointers,
    (strip) => {
      const keeps = { dx: wanted[0], dgamma: wanted[1], dbeta: wanted[2] };
      const { f, m, at: p, array, channels } = strip;
      const [mean, scale, sum, product] = [array(0), array(1), array(2), array(3)];
      perGroup(strip, [], (_sums, group, first) => {
        spread(strip, mean, first, f.let(f32.load(i32.add(p.mu, i32.shl(group, 2)))));
        spread(strip, scale, first, f.let(f32.load(i32.add(p.r, i32.shl(group, 2)))));
      });
      clear(strip, [sum, product]);
      columns(strip, silu ? 1 : 3, [p.g, p.x, p.dx], [mean, scale, p.gamma, p.beta, sum, product], (v, channel) => {
        const [mean, scale, gamma, beta, s, b] = channel as [I32, I32, I32, I32, I32, I32];
        const mu = f.let(v.loadPadded(mean));
        const k = silu ? f.let(f32x4.mul(v.loadPadded(scale), v.load(gamma))) : undefined;
        const shift = silu ? f.let(v.load(beta)) : undefined;
        const [total, weighted] = [f.let(v.loadPadded(s)), f.let(v.loadPadded(b))];
        return {
          pixel: ([g, x, dx]) => {
            const slope = f.let(v.load(g!));
            const d = f.let(f32x4.sub(v.load(x!), mu));
            if (k && shift) {
              f.set(slope, f32x4.mul(slope, siluSlope(f, f.let(multiplyAdd(d, k, shift)))));
              if (keeps.dx) f.emit(v.store(dx!, slope));
            }
            f.set(total, f32x4.add(total, slope));
            f.set(weighted, multiplyAdd(slope, d, weighted));
          },
          end: () => f.emit(v.storePadded(s, total), v.storePadded(b, weighted)),
        };
      });
      const along = [sum, product, scale, p.gamma, p.dgamma, p.dbeta].map((x) => f.let(x));
      const [s, b, r, gamma, dgamma, dbeta] = along as [I32, I32, I32, I32, I32, I32];
      alongRow(f, m, 1, channels, keeps.dgamma || keeps.dbeta ? along : along.slice(0, 4), (v) => {
        f.emit(v.storePadded(b, f32x4.mul(v.loadPadded(b), v.loadPadded(r))));
        if (keeps.dbeta) f.emit(v.store(dbeta, v.loadPadded(s)));
        if (keeps.dgamma) f.emit(v.store(dgamma, v.loadPadded(b)));
        for (const x of [s, b]) f.emit(v.storePadded(x, f32x4.mul(v.loadPadded(x), v.load(gamma))));
      });
      if (!keeps.dx) return;
      perGroup(strip, [sum, product], ([a, b], _group, first) => {
        const n = f.let(numbersInGroup(strip));
        spread(strip, sum, first, f.let(f32.demote_f64(f64.div(a!, n))));
        spread(strip, product, first, f.let(f32.demote_f64(f64.div(b!, n))));
      });
      columns(strip, 2, [silu ? p.dx : p.g, p.x, p.dx], [mean, scale, p.gamma, sum, product], (v, channel) => {
        const [mean, scale, gamma, s, b] = channel as [I32, I32, I32, I32, I32];
        const r = f.let(v.loadPadded(scale));
        const mu = f.let(v.loadPadded(mean));
        const k = f.let(f32x4.mul(r, v.load(gamma)));
        const shift = f.let(f32x4.neg(f32x4.mul(r, v.loadPadded(s))));
        const tilt = f.let(f32x4.neg(f32x4.mul(f32x4.mul(r, r), v.loadPadded(b))));
        return {
          pixel: ([g, x, dx]) => {
            const level = f.let(multiplyAdd(f32x4.sub(v.load(x!), mu), tilt, shift));
            f.emit(v.store(dx!, multiplyAdd(v.load(g!), k, level)));
          },
        };
      });
    },
  );
type I32 = Local<'i32'>;

const wantedOf = (outputs: Shapes['outputs']): Wanted => [!!outputs[0], !!outputs[1], !!outputs[2]];

/** `norm` of pictures */
export const pictureNorm = ({ inputs: [x, gamma, beta], outputs, attrs }: Shapes<NormAttrs>): Plan => {
  const [y, mu, r] = outputs;
  return stripPlan(forwardKernel(attrs.silu, wantedOf(outputs)), {
    shape: x!.view.shape,
    groups: attrs.groups,
    pixels: { x: x!.at, y: y?.at ?? 0 },
    perChannel: { gamma: gamma!.at, beta: beta!.at },
    perGroup: { mu: mu?.at ?? 0, r: r?.at ?? 0 },
    rest: { eps: f32Bits(attrs.eps) },
  });
};
/** `normGrad` of pictures */
export const pictureNormGrad = ({
  inputs: [g, x, gamma, mu, r, beta],
  outputs,
  attrs,
}: Shapes<NormGradAttrs>): Plan => {
  const [dx, dgamma, dbeta] = outputs;
  return stripPlan(gradKernel(attrs.silu, wantedOf(outputs)), {
    shape: x!.view.shape,
    groups: attrs.groups,
    pixels: { g: g!.at, x: x!.at, dx: dx?.at ?? 0 },
    // without an activation β is not an operand
    perChannel: { gamma: gamma!.at, beta: (beta ?? gamma!).at },
    perGroup: { mu: mu!.at, r: r!.at },
    perPictureChannel: { dgamma: dgamma?.at ?? 0, dbeta: dbeta?.at ?? 0 },
  });
};
