/** What an experiment will take before it runs: time and memory of a run of each method, from plans of its programs. */
import { openBackend } from '../../core/index.ts';
import type { RunConfig } from '../config/config.ts';
import { lengthOf } from '../config/resume.ts';
import { foresee } from '../estimate/index.ts';
import { type Speed, speedOf } from '../estimate/lines.ts';
import { openBaseAt } from '../model/model.ts';
import { findData } from '../trainer/pairs.ts';
import { bytes, counted, duration } from '../words/format.ts';
import type { Experiment } from './config.ts';
import type { State } from './state.ts';

/** With its length in updates, which a length in passes is only beside its data. */
async function withSteps(c: RunConfig): Promise<RunConfig> {
  if (c.epochs === null) return c;
  const { pairs } = await findData(c);
  return { ...c, steps: lengthOf(c, pairs.train), epochs: null };
}

/**
 * A line for each method, and one for all runs that are not done.
 * @throws RangeError where a run does not fit this machine; FileError where base or data are not there
 */
export async function costOfExperiment(e: Experiment, states: readonly State[]): Promise<readonly string[]> {
  const lines: string[] = [];
  let whole = 0;
  // measured once for each backend, so that methods are told apart by their work alone
  const speeds = new Map<string, Speed>();
  for (const arm of e.arms) {
    const { backend: name, threads, base, baseConfig } = arm.config;
    const backend = await openBackend(name, threads === null ? {} : { threads });
    try {
      if (backend.name !== 'wasm' && backend.name !== 'webgpu')
        return [`time and memory: plans are made for wasm and webgpu, not for ${backend.name}`];
      const speed = speeds.get(backend.name) ?? (await speedOf(backend));
      speeds.set(backend.name, speed);
      const opened = await openBaseAt(base, baseConfig);
      const { seconds, bytes: peak } = await foresee(await withSteps(arm.config), opened, backend, speed);
      const open = states.filter(({ run, state }) => run.arm === arm && state !== 'done').length;
      whole += open * (seconds ?? 0);
      lines.push(
        `${arm.name}: about ${duration(seconds ?? 0)} and ${bytes(peak)} a run, ${counted(open, 'run')} to go`,
      );
    } finally {
      await backend.close();
    }
  }
  return [...lines, `about ${duration(whole)} for all on this machine idle, one after the other`];
}
