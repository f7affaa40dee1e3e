/** What an experiment will take before it runs: time and memory of a run of each method, from plans of its programs. */
import { type Backend, openBackend } from '../../core/index.ts';
import type { RunConfig } from '../config/config.ts';
import { lengthOf } from '../config/resume.ts';
import { foresee, hasPlans } from '../estimate/index.ts';
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

/** A backend, and how fast it is now; only where it makes plans. */
type Machine = { readonly backend: Backend; readonly speed: Speed | undefined };

/**
 * A line for each method, and one for all runs that are not done.
 * @throws FileError where base or data are not there
 */
export async function costOfExperiment(e: Experiment, states: readonly State[]): Promise<readonly string[]> {
  // opened and measured once, so that methods are told apart by their work alone
  const machines = new Map<string, Machine>();
  const machineOf = async ({ backend: name, threads }: RunConfig): Promise<Machine> => {
    const key = `${name} ${threads}`;
    const known = machines.get(key);
    if (known) return known;
    const backend = await openBackend(name, threads === null ? {} : { threads });
    const made = { backend, speed: hasPlans(backend) ? await speedOf(backend) : undefined };
    machines.set(key, made);
    return made;
  };
  const lines: string[] = [];
  let whole = 0;
  try {
    for (const arm of e.arms) {
      const { backend, speed } = await machineOf(arm.config);
      if (!speed) {
        lines.push(`${arm.name}: no plan, they are made for wasm and webgpu, not for ${backend.name}`);
        continue;
      }
      const base = await openBaseAt(arm.config.base, arm.config.baseConfig);
      const config = await withSteps(arm.config);
      try {
        const { seconds = 0, bytes: peak } = foresee(arm.given, config, base, backend, speed);
        const open = states.filter(({ run, state }) => run.arm === arm && state !== 'done').length;
        whole += open * seconds;
        lines.push(`${arm.name}: about ${duration(seconds)} and ${bytes(peak)} a run, ${counted(open, 'run')} to go`);
      } catch (error) {
        // another machine may have room for it
        if (!(error instanceof RangeError)) throw error;
        lines.push(`${arm.name}: refused on this machine: ${error.message}`);
      }
    }
  } finally {
    for (const { backend } of machines.values()) await backend.close();
  }
  return [...lines, `about ${duration(whole)} for all on this machine idle, one after the other`];
}
