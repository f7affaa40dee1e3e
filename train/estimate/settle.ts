/**
 * Settings that depend on memory: how many micro-batches an update takes, and whether blocks are recomputed. Chosen from the
 * plan and the budget where the person leaves them open; refused, with reasons, where nothing fits.
 */
import os from 'node:os';
import type { Backend } from '../../core/index.ts';
import type { Base } from '../../models/io/base.ts';
import { parameterCount } from '../../models/spec.ts';
import type { RunConfig } from '../config/config.ts';
import { specsOf, storageOf } from '../model/model.ts';
import { sideOf, targetsOf } from '../model/targets.ts';
import { chosenOf, type Initial } from '../step/ranks.ts';
import { bytes } from '../words/format.ts';
import { addUp, type Estimate, planAround, planSteps, type RunShape } from './estimate.ts';

/** Which settings may be chosen here. */
export type Open = { readonly accumulate: boolean; readonly checkpointBlocks: boolean };
export type Budget = {
  /** what the backend can address, or may take */
  readonly backend: number;
  /** in words: whose limit that is */
  readonly limit: string;
  /** what the machine has free */
  readonly process: number;
};
export type Settled = { readonly config: RunConfig; readonly estimate: Estimate; readonly shape: RunShape };

/** a WASM memory ends at 4 GiB; the last pages are left to programs and small tensors */
const WASM_BYTES = 4 * 2 ** 30 - 96 * 2 ** 20;

/**
 * The budget of this machine now. WebGPU does not tell how much memory a card has: `most` does.
 * @param most bytes the backend may take, as told
 */
export const budgetOf = (backend: Backend, most = Number.POSITIVE_INFINITY): Budget => ({
  ...(backend.name === 'wasm' && most >= WASM_BYTES
    ? { backend: WASM_BYTES, limit: 'a WASM memory holds' }
    : { backend: most, limit: '--memory allows' }),
  process: os.freemem() + process.memoryUsage.rss(),
});

export const shapeOf = (base: Base, c: RunConfig, backend: Backend, initial?: Initial): RunShape => ({
  ...c,
  chosen: chosenOf(c, initial),
  side: sideOf(base, c),
  weights: storageOf(base, backend, c.weights),
  samples: Math.min(8, Math.max(c.samples, c.data === 'phantoms' ? c.obedience : 0)),
});

/** Planning takes seconds; runs far below any limit go without. */
export function isLarge(base: Base, c: RunConfig): boolean {
  const specs = Object.values(specsOf(base));
  return specs.reduce((n, s) => n + parameterCount(s), 0) > 30e6 || c.batch * sideOf(base, c) ** 2 > 2 ** 21;
}

/** bytes in the memory that kernels address */
const addressed = (e: Estimate): number => e.backendBytes - e.outsideBytes;
const fits = (e: Estimate, budget: Budget): boolean =>
  addressed(e) <= budget.backend && e.outsideBytes <= budget.backend && e.processBytes <= budget.process;

/**
 * Chooses the open settings: the fewest micro-batches that fit without recomputing, else the fewest that fit with it.
 * What cannot fit is not planned: a micro-batch half as large needs at least half the intermediates.
 */
export function settle(
  c: RunConfig,
  open: Open,
  base: Base,
  backend: Backend,
  budget: Budget,
  initial?: Initial,
): Settled {
  const linears = targetsOf(base, c);
  const first = shapeOf(base, c, backend, initial);
  const around = planAround(base, first, backend);
  const of = (shape: RunShape): Settled => ({
    shape,
    config: { ...c, accumulate: shape.accumulate, checkpointBlocks: shape.checkpointBlocks },
    estimate: addUp(base, linears, shape, [...planSteps(base, linears, shape, backend), ...around], backend),
  });
  const divisors = Array.from({ length: c.batch }, (_, i) => i + 1).filter((n) => c.batch % n === 0);
  const counts = open.accumulate ? divisors : [c.accumulate];
  let last: Settled | undefined;
  for (const checkpointBlocks of open.checkpointBlocks ? [false, true] : [c.checkpointBlocks]) {
    let known: { readonly count: number; readonly bytes: number; readonly rest: number } | undefined;
    for (const accumulate of counts) {
      const least = known ? known.rest + (known.bytes * known.count) / accumulate : 0;
      if (known && accumulate !== counts.at(-1) && least > budget.backend) continue;
      const tried = of({ ...first, accumulate, checkpointBlocks });
      if (fits(tried.estimate, budget)) return tried;
      last = tried;
      const { weights, optimizer, backendBytes, outsideBytes } = tried.estimate;
      const rest = weights - outsideBytes + optimizer;
      known = { count: accumulate, bytes: backendBytes - weights - optimizer, rest };
    }
  }
  return last!;
}

/** Three largest causes and what to change, in one line; undefined where the run fits. */
export function refusal({ estimate: e, shape, config: c }: Settled, budget: Budget): string | undefined {
  if (fits(e, budget)) return undefined;
  const large = Math.max(addressed(e), e.outsideBytes);
  const limit =
    large > budget.backend
      ? `needs ${bytes(large)}, ${budget.limit} ${bytes(budget.backend)}`
      : `needs ${bytes(e.processBytes)}, this machine has ${bytes(budget.process)} free`;
  // stored weights have a memory of their own: they are a cause where that, or the machine, is too small
  const apart = addressed(e) > budget.backend ? e.outsideBytes : 0;
  const causes = [
    { name: `weights (${shape.weights})`, size: e.weights - apart },
    { name: 'adapters, moments and gradients', size: e.optimizer },
    ...e.plans.map((p) => ({ name: `intermediates of ${p.name}`, size: p.workspaceBytes })),
  ].sort((a, b) => b.size - a.size);
  const changes = [
    shape.weights === 'f32' ? '--weights f16' : shape.weights === 'f16' ? '--weights nf4' : '',
    c.checkpointBlocks ? '' : '--checkpoint-blocks on',
    c.accumulate < c.batch ? `--accumulate ${c.batch}` : '',
    `a --resolution below ${shape.side}`,
    c.samples > 1 ? '--samples 1' : '',
  ].filter((text) => text !== '');
  const shown = causes.slice(0, 3).map(({ name, size }) => `${name} ${bytes(size)}`);
  return `this run ${limit}: ${shown.join(', ')}; try ${changes.join(', ')}`;
}
