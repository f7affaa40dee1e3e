/** Before a run: settings that depend on memory are chosen, what cannot fit is refused, `--estimate` prints the plan. */
import type { Backend } from '../../core/index.ts';
import type { Base } from '../../models/io/base.ts';
import { createSampler, makeSchedule } from '../../models/schedulers/index.ts';
import { type Io, print } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { type Given, isOpen } from '../config/resolve.ts';
import { sideOf, targetsOf } from '../model/targets.ts';
import { chosenOf, type Initial, startRanks } from '../step/ranks.ts';
import { bytes } from '../words/format.ts';
import { costLines, costOf, reduce, runSeconds } from './cost.ts';
import { estimateLines, isLeast, NOMINAL, OPERATIONS, type Speed, speedOf } from './lines.ts';
import { type Budget, budgetOf, isLarge, refusal, type Settled, settle } from './settle.ts';

/** Whether a backend tells what a program will take before it runs. */
export const hasPlans = ({ name }: Backend): boolean => name === 'wasm' || name === 'webgpu';

/**
 * Refuses settings that do not fit their base: its configurations and headers are enough to tell.
 * @throws RangeError naming the option
 */
export function refuseUnfit(asked: RunConfig, base: Base, initial?: Initial): void {
  sideOf(base, asked);
  startRanks(chosenOf(asked, initial), targetsOf(base, asked));
  // what cannot draw with this base is told now, and not after the last step
  if (asked.samples > 0 || (asked.data === 'phantoms' && asked.obedience > 0))
    createSampler(asked.sampler, makeSchedule(base.configs.scheduler), asked.sampleSteps);
}

/** The settings left open chosen by what fits, and the plan they were chosen by. */
function planned(
  options: Given,
  asked: RunConfig,
  base: Base,
  backend: Backend,
  budget: Budget,
  initial?: Initial,
): { readonly settled: Settled; readonly config: RunConfig } {
  const open = { accumulate: isOpen(options, 'accumulate'), checkpointBlocks: isOpen(options, 'checkpointBlocks') };
  const settled = settle(asked, open, base, backend, budget, initial);
  const config = isLarge(base, asked)
    ? reduce(settled.config, costOf(settled, NOMINAL), (key) => isOpen(options, key))
    : settled.config;
  return { settled, config };
}

/**
 * What a run of these settings takes on this machine: seconds (by `speed`, without it undefined) and operations (undefined
 * where only its data tell its length), and the bytes of its process. Reads configurations and headers, no weights. Cost: planning its programs, seconds.
 * @throws RangeError when the run does not fit
 */
export function foresee(
  options: Given,
  asked: RunConfig,
  base: Base,
  backend: Backend,
  speed: Speed | undefined,
): { readonly seconds: number | undefined; readonly bytes: number; readonly flops: number | undefined } {
  refuseUnfit(asked, base);
  const budget = budgetOf(backend);
  const { settled, config } = planned(options, asked, base, backend, budget);
  const problem = refusal(settled, budget);
  if (problem !== undefined) throw new RangeError(problem);
  return {
    seconds: speed && runSeconds(config, costOf(settled, speed)),
    bytes: settled.estimate.processBytes,
    flops: runSeconds(config, costOf(settled, OPERATIONS)),
  };
}

/**
 * The settings of a new run, complete; undefined when only the estimate was asked for. Reads configurations and headers,
 * no weights. On backends without plans the settings left open become one batch, blocks kept.
 * @throws RangeError: one line with the three largest causes and what to change, when the run does not fit
 */
export async function settleRun(
  options: Given,
  asked: RunConfig,
  base: Base,
  backend: Backend,
  io: Io,
  initial?: Initial,
): Promise<RunConfig | undefined> {
  const estimating = options.estimate === true;
  const { memory } = options;
  const told = estimating ? '--estimate' : typeof memory === 'number' ? '--memory' : undefined;
  const plans = hasPlans(backend);
  if (told && !plans)
    throw new RangeError(`${told}: plans are made for wasm and webgpu, not for ${backend.name}; add --backend wasm`);
  if (!plans || (!told && !isLarge(base, asked))) return asked;
  const budget = budgetOf(backend, typeof memory === 'number' ? memory * 2 ** 30 : undefined);
  const { settled, config: c } = planned(options, asked, base, backend, budget, initial);
  const speed = await speedOf(backend);
  if (estimating) for (const line of estimateLines(settled, speed)) print(io, line);
  const problem = refusal(settled, budget);
  if (problem !== undefined) throw new RangeError(problem);
  for (const line of costLines(c, costOf(settled, speed), asked, isLeast(speed))) print(io, line);
  if (estimating) return undefined;
  const { estimate } = settled;
  print(
    io,
    `memory: about ${bytes(estimate.processBytes)}; ${c.accumulate} micro-batch${c.accumulate === 1 ? '' : 'es'} per update, blocks ${c.checkpointBlocks ? 'recomputed' : 'kept'}`,
  );
  return c;
}
