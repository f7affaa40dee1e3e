/** What stands inside a step: values of modules and the derivatives of the loss by them, of one sample of its batch. */
import { capture, entries, mean, mul, slice, type Tensor, type Tree } from '../../core/index.ts';
import type { Tap } from '../../models/tap.ts';
import type { Params } from '../../selora/methods/method.ts';
import { partOf } from '../../selora/networks.ts';
import { globToRegExp } from '../../selora/targets.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { type LossOptions, sampleLosses } from '../step/gradients.ts';
import type { Batch, Frozen, PerModule } from '../step/state.ts';
import { fullName, moduleOfLabel, modulePaths } from './names.ts';

/** Values by module, of one sample. */
export interface Inside {
  readonly values: Readonly<Record<string, Tensor>>;
  /** of the mean loss of the whole batch */
  readonly cotangents: Readonly<Record<string, Tensor>>;
}

/** One sample of a batch, as a batch of one. */
export const sampleOf = (batch: Batch, i: number): Batch =>
  Object.fromEntries(
    Object.entries(batch).map(([name, x]) => [name, slice(x, { axis: 0, start: i, stop: i + 1 })]),
  ) as Batch;

/** The modules there are, without the U-Net as a whole, whose last value is the loss. */
export const modulesIn = (frozen: Frozen): readonly string[] =>
  modulePaths(entries<Tensor>(frozen as unknown as Tree<Tensor>).map(([path]) => path)).filter(
    (m) => m !== partOf.unet,
  );

/**
 * The modules that patterns choose, in the order of the model.
 * @param patterns globs with commas between them, over names such as `unet.mid_block.resnets.0`
 * @throws RangeError for one that matches nothing
 */
export function chosenModules(patterns: string, modules: readonly string[]): readonly string[] {
  const found = new Set<string>();
  for (const pattern of patterns
    .split(',')
    .map((p) => p.trim())
    .filter(Boolean)) {
    const fits = globToRegExp(pattern);
    const hits = modules.filter((m) => fits.test(m));
    if (hits.length === 0)
      throw new RangeError(
        `--modules ${pattern}: matches none of ${modules.length} modules; one is unet.mid_block.resnets.0`,
      );
    for (const hit of hits) found.add(hit);
  }
  return modules.filter((m) => found.has(m));
}

/**
 * Looks into one sample: a forward and a backward pass of it alone, without a step's candidates. Values of
 * the U-Net's submodules are their results; of a single layer it is the last value computed for its parameters, which may
 * have the sum of a residual in it.
 * @param of samples of the batch, whose mean is the loss
 * @returns recipes: to be compiled, or asked for their shapes
 * @throws CoreError, when it is called, for a module that computes nothing
 */
export function insideOf<P extends Params>(
  o: LossOptions<P>,
  places: ModelPlaces,
  modules: readonly string[],
  of: number,
): (params: PerModule<P>, frozen: Frozen, one: Batch) => Inside {
  return (params, frozen, one) => {
    const named = new Map<string, Tensor>();
    // the norm before the last convolution is shown without its SiLU, as no step computes it
    const tap: Tap = (path, value) => void (path !== 'conv_norm_out' && named.set(fullName(path), value));
    // blocks that are computed again in the backward pass are closed to a look
    const open = { ...o, checkpointBlocks: false, tap };
    const loss = (p: PerModule<P>, f: Frozen): Tensor => mul(mean(sampleLosses(open, p, f, one)), 1 / of);
    const seen = capture(loss as Traced, modules, moduleOfLabel(places), named)(params as never, frozen as never);
    return { values: seen.intermediates, cotangents: seen.cotangents };
  };
}
type Traced = (...args: readonly Tree<Tensor>[]) => Tensor;
