/** Going on with a run: which settings may be others than it was begun with, and what a new length means. */
import { ratesOf } from '../optimise/rates.ts';
import { number } from '../words/format.ts';
import { configSchema, type RunConfig } from './config.ts';
import { type Given, resolveConfig } from './resolve.ts';
import { keysWhere, optionOf } from './setting.ts';

/**
 * Settings that change nothing that was done already: how long the run goes on, what is measured or drawn at its end, how
 * often it is saved, the number of threads (same bits for any), and the places of data and base, whose content is compared.
 */
export const CHANGEABLE: readonly string[] = keysWhere(configSchema.shape, (about) => about.changeable);

/**
 * The settings of a run that is gone on with: those it has, with what was given beside `--resume`.
 * @throws RangeError naming the first option that cannot change any more, and those that can
 * @example resumedConfig(config, { resume: 'runs/first', steps: 2000 })
 */
export function resumedConfig(config: RunConfig, options: Given): RunConfig {
  const given = Object.entries(options).filter(
    // --no-train-text-encoder makes commander say `true` where it was not given
    ([key, value]) => key !== 'resume' && value !== undefined && !(key === 'trainTextEncoder' && value === true),
  );
  const fixed = given.find(([key]) => !CHANGEABLE.includes(key));
  if (fixed)
    throw new RangeError(
      `${optionOf(fixed[0])}: cannot be given with --resume, the run goes on as it began; ${CHANGEABLE.map(optionOf).join(', ')} can`,
    );
  const changes: Record<string, unknown> = Object.fromEntries(given);
  // a length in updates takes the place of one in passes over the data
  if (changes.steps !== undefined && changes.epochs === undefined) changes.epochs = null;
  return resolveConfig({ ...config, ...changes });
}

/** Updates of a run over so many training pairs. */
export const lengthOf = ({ epochs, steps, batch }: RunConfig, pairs: number): number =>
  epochs === null ? steps : Math.ceil((epochs * pairs) / batch);

/**
 * Says what another length does to a run; undefined when the length is the same.
 * @throws RangeError when more was done already
 * @example newLength(before, after, { done: 1200, from: 1200, to: 2000 })
 */
export function newLength(
  c: RunConfig,
  { done, from, to }: { readonly done: number; readonly from: number; readonly to: number },
): string | undefined {
  if (to < done) throw new RangeError(`--steps ${to}: this run has done ${done} already; give ${done} or more`);
  if (from === to) return undefined;
  const rates = [from, to].map((steps) => number(ratesOf(c, Math.min(done, steps - 1), steps).unet));
  const rate =
    c.schedule === 'constant' || c.schedule === 'constant_with_warmup'
      ? 'the learning rate stays'
      : `the ${c.schedule} schedule spans the new length, its rate now ${rates[0]} → ${rates[1]}`;
  const mix = c.timesteps === 'mixed' ? '; timesteps are drawn for the new length too' : '';
  return `${from} → ${to} steps, ${done} done: ${rate}${mix}`;
}
