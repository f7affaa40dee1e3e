/** How far the runs of an experiment are, from their folders alone. */
import { readdir } from 'node:fs/promises';
import { systemCode } from '../../models/io/error.ts';
import { readRun } from '../run/read.ts';
import type { RunRecord } from '../run/record.ts';
import type { Run } from './config.ts';

/** A run as its folder tells. */
export type State =
  | { readonly run: Run; readonly state: 'not begun' }
  | { readonly run: Run; readonly state: 'unfinished'; readonly why: string }
  | { readonly run: Run; readonly state: 'done'; readonly record: RunRecord };

/** Reads one run's folder. A broken one is unfinished, with the line that says why. */
export async function stateOf(run: Run): Promise<State> {
  const names = await readdir(run.folder).catch((error) => {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (names === undefined || names.length === 0) return { run, state: 'not begun' };
  try {
    const record = await readRun(run.folder, false);
    const { unfinished, modules, metrics } = record;
    if (!names.includes('adapter.safetensors') || unfinished || modules.length === 0)
      return { run, state: 'unfinished', why: `at step ${unfinished?.step ?? metrics.at(-1)?.step ?? 0}` };
    return { run, state: 'done', record };
  } catch (error) {
    return { run, state: 'unfinished', why: (error as Error).message };
  }
}
/** All of them, in order. */
export const statesOf = async (runs: readonly Run[]): Promise<readonly State[]> => {
  const out: State[] = [];
  for (const run of runs) out.push(await stateOf(run));
  return out;
};
