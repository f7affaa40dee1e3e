/** A settled run in words: a table of phases, and the time of a step from a short probe of the machine. */
import { type Backend, compile, dot, read, sum, type Tensor, tensor } from '../../core/index.ts';
import { bytes, duration } from '../words/format.ts';
import type { Plan } from './estimate.ts';
import type { Settled } from './settle.ts';

/** What a plan is turned into time with. */
export type Speed = {
  /** of a matrix product, flop/s */
  readonly rate: number;
  /** share of it that the contractions of a step reach with everything between them */
  readonly share: number;
  /** multiplications of a convolution that are done */
  readonly convShare: number;
  /** seconds to widen one stored half float and put it in the order its kernel reads */
  readonly half: number;
};
/** wasm: fitted to runs; convolutions by Winograd's F(4×4), halves limited by memory. */
const FITTED = { share: 0.78, convShare: 0.25, half: 1.07e-9 };
/** webgpu: the least it can be, since adapters differ too much to fit */
const LEAST = { share: 1, convShare: 1, half: 0 };
export const isLeast = (s: Speed): boolean => s.share === LEAST.share;

/** A machine to settle proportions by: the same command gives the same settings on all. */
export const NOMINAL: Speed = { ...FITTED, rate: 1e11 };

/** One operation a second: what a time by it counts are the multiplications and additions of products and convolutions. */
export const OPERATIONS: Speed = { rate: 1, share: 1, convShare: 1, half: 0 };

/** How fast this machine is now. */
export const speedOf = async (backend: Backend): Promise<Speed> => ({
  ...(backend.name === 'wasm' ? FITTED : LEAST),
  rate: await probeRate(backend),
});

/** Rate of a matrix product, flop/s: the best of a few. */
async function probeRate(backend: Backend): Promise<number> {
  const n = 768;
  const x = tensor(new Float32Array(n * n).fill(0.5), [1, n, n]);
  const product = compile((a: Tensor) => sum(dot(a, a)), { backend, name: 'probe' });
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 6; i++) {
    const start = performance.now();
    await read(product(x));
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  product.trim();
  return (2 * n ** 3) / best;
}

/** seconds one run of a program takes */
export const secondsOf = (p: Plan, { rate, share, convShare, half }: Speed): number =>
  (p.flops - (1 - convShare) * p.convFlops) / (rate * share) + p.widened * half;

const rate = ({ rate }: Speed): string => (rate / 1e9).toPrecision(3);
const short = (seconds: number): string => (seconds < 1 ? `${seconds.toFixed(2)} s` : duration(seconds));

const outside = (size: number): string =>
  size === 0 ? '' : `${bytes(size)} of it stored weights, outside the memory of kernels`;

/** The lines of `--estimate`. */
export function estimateLines({ config: c, estimate: e, shape }: Settled, speed: Speed): readonly string[] {
  const row = (name: string, size: number, more = '') =>
    `  ${name.padEnd(41)} ${bytes(size).padStart(9)}  ${more}`.trimEnd();
  const plans = e.plans.map((p) =>
    row(
      `intermediates of ${p.name}`,
      p.workspaceBytes,
      `${(p.flops / 1e9).toFixed(0)} GFLOP, ${duration(secondsOf(p, speed))}`,
    ),
  );
  const step = c.accumulate * secondsOf(e.plans[0]!, speed);
  const micro = `${c.accumulate} micro-batch${c.accumulate === 1 ? '' : 'es'} of ${c.batch / c.accumulate}`;
  return [
    `batch ${c.batch} in ${micro} at ${shape.side}×${shape.side}, blocks ${c.checkpointBlocks ? 'recomputed' : 'kept'}, weights ${shape.weights}`,
    row('weights', e.weights),
    row('adapters, moments, gradients', e.optimizer),
    ...plans,
    row('at most, on the backend', e.backendBytes, outside(e.outsideBytes)),
    row('at most, whole process', e.processBytes),
    `one step ${isLeast(speed) ? 'at least ' : ''}${short(step)}, ${short(step / c.batch)} per image (a matrix product runs at ${rate(speed)} GFLOP/s here now)`,
  ];
}
