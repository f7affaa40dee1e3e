/** Before a run: settings that depend on memory are chosen, what cannot fit is refused, `--estimate` prints the plan. */
import type { Backend } from '../../core/index.ts';
import { type Io, print } from '../cli.ts';
import { openSettings, type RunConfig, resolveConfig } from '../config.ts';
import { openBaseAt } from '../model.ts';
import { bytes } from '../report/format.ts';
import { costLines, costOf, NOMINAL_RATE, reduce } from './cost.ts';
import { budgetOf, isLarge, refusal, settle } from './settle.ts';
import { estimateLines, probeRate } from './text.ts';

/**
 * The settings of a new run, complete; undefined when only the estimate was asked for. Reads configurations and headers,
 * no weights. Plans are those of the wasm backend; on others the settings left open become one batch, blocks kept.
 * @throws RangeError: one line with the three largest causes and what to change, when the run does not fit
 */
export async function settleRun(
  options: Readonly<Record<string, unknown>>,
  backend: Backend,
  io: Io,
): Promise<RunConfig | undefined> {
  const asked = resolveConfig(options);
  const base = await openBaseAt(asked.base);
  const estimating = options.estimate === true;
  if (estimating && backend.name !== 'wasm')
    throw new RangeError(
      `--estimate: plans are made for the wasm backend, not for ${backend.name}; add --backend wasm`,
    );
  if (!estimating && (backend.name !== 'wasm' || !isLarge(base, asked))) return asked;
  const budget = budgetOf(backend);
  const settled = settle(asked, openSettings(options), base, backend, budget);
  const rate = await probeRate(backend);
  const isOpen = (key: string) => options[key] === undefined;
  const c = isLarge(base, asked) ? reduce(settled.config, costOf(settled, NOMINAL_RATE), isOpen) : settled.config;
  if (estimating) for (const line of estimateLines(settled, rate)) print(io, line);
  const problem = refusal(settled, budget);
  if (problem !== undefined) throw new RangeError(problem);
  for (const line of costLines(c, costOf(settled, rate), asked)) print(io, line);
  if (estimating) return undefined;
  const { estimate } = settled;
  print(
    io,
    `memory: about ${bytes(estimate.processBytes)}; ${c.accumulate} micro-batch${c.accumulate === 1 ? '' : 'es'} per update, blocks ${c.checkpointBlocks ? 'recomputed' : 'kept'}`,
  );
  return c;
}
