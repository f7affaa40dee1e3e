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
import { estimateLines, isLeast, NOMINAL, type Speed, speedOf } from './lines.ts';
import { budgetOf, isLarge, refusal, settle } from './settle.ts';

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

/**
 * What a run of these settings takes on this machine: seconds (undefined where only its data tell its length) and the
 * bytes of its process. Reads configurations and headers, no weights. Cost: planning its programs, seconds.
 * @throws RangeError when the run does not fit
 */
export async function foresee(
  c: RunConfig,
  base: Base,
  backend: Backend,
  speed: Speed,
): Promise<{ readonly seconds: number | undefined; readonly bytes: number }> {
  refuseUnfit(c, base);
  const budget = budgetOf(backend);
  const settled = settle(c, { accumulate: false, checkpointBlocks: false }, base, backend, budget);
  const problem = refusal(settled, budget);
  if (problem !== undefined) throw new RangeError(problem);
  const cost = costOf(settled, speed);
  return { seconds: runSeconds(settled.config, cost), bytes: settled.estimate.processBytes };
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
  const plans = backend.name === 'wasm' || backend.name === 'webgpu';
  if (told && !plans)
    throw new RangeError(`${told}: plans are made for wasm and webgpu, not for ${backend.name}; add --backend wasm`);
  if (!plans || (!told && !isLarge(base, asked))) return asked;
  const budget = budgetOf(backend, typeof memory === 'number' ? memory * 2 ** 30 : undefined);
  const open = { accumulate: isOpen(options, 'accumulate'), checkpointBlocks: isOpen(options, 'checkpointBlocks') };
  const settled = settle(asked, open, base, backend, budget, initial);
  const speed = await speedOf(backend);
  const c = isLarge(base, asked)
    ? reduce(settled.config, costOf(settled, NOMINAL), (key) => isOpen(options, key))
    : settled.config;
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
