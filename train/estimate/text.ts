/** A settled run in words: a table of phases, and the time of a step from a short probe of the machine. */
import { type Backend, compile, dot, read, sum, type Tensor, tensor } from '../../core/index.ts';
import { bytes, duration } from '../report/format.ts';
import type { Plan } from './estimate.ts';
import type { Settled } from './settle.ts';

/** share of the probe's rate that the contractions of a step reach with everything between them */
const SHARE = 0.78;
/** multiplications of a convolution that are done: Winograd's F(4×4) */
const CONV_SHARE = 0.25;
/** seconds to widen one stored half float and put it in the order its kernel reads (limited by memory) */
const HALF_SECONDS = 1.07e-9;

/** Rate of a matrix product on this machine now, flop/s: the best of a few. */
export async function probeRate(backend: Backend): Promise<number> {
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

/** seconds one run of a program takes at a rate */
export const secondsOf = (p: Plan, rate: number): number =>
  (p.flops - (1 - CONV_SHARE) * p.convFlops) / (rate * SHARE) + p.halves * HALF_SECONDS;

const short = (seconds: number): string => (seconds < 1 ? `${seconds.toFixed(2)} s` : duration(seconds));

const outside = (size: number): string =>
  size === 0 ? '' : `${bytes(size)} of it stored halves, outside the memory of kernels`;

/** The lines of `--estimate`. */
export function estimateLines({ config: c, estimate: e, shape }: Settled, rate: number): readonly string[] {
  const row = (name: string, size: number, more = '') =>
    `  ${name.padEnd(36)} ${bytes(size).padStart(9)}  ${more}`.trimEnd();
  const plans = e.plans.map((p) =>
    row(
      `intermediates of ${p.name}`,
      p.workspaceBytes,
      `${(p.flops / 1e9).toFixed(0)} GFLOP, ${duration(secondsOf(p, rate))}`,
    ),
  );
  const step = c.accumulate * secondsOf(e.plans[0]!, rate);
  const micro = `${c.accumulate} micro-batch${c.accumulate === 1 ? '' : 'es'} of ${c.batch / c.accumulate}`;
  return [
    `batch ${c.batch} in ${micro} at ${shape.side}×${shape.side}, blocks ${c.checkpointBlocks ? 'recomputed' : 'kept'}, weights ${shape.weights}`,
    row('weights', e.weights),
    row('adapters, moments, gradients', e.optimizer),
    ...plans,
    row('at most, on the backend', e.backendBytes, outside(e.outsideBytes)),
    row('at most, whole process', e.processBytes),
    `one step ${short(step)}, ${short(step / c.batch)} per image (a matrix product runs at ${(rate / 1e9).toFixed(0)} GFLOP/s here now)`,
  ];
}
