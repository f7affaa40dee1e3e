/** What an experiment will take before it runs: time and memory of a run of each method, from plans of its programs. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { type Backend, CoreError, openBackend } from '../../core/index.ts';
import { FileError } from '../../models/io/error.ts';
import type { RunConfig } from '../config/config.ts';
import { lengthOf } from '../config/resume.ts';
import { foresee, hasPlans } from '../estimate/index.ts';
import { type Speed, speedOf } from '../estimate/lines.ts';
import { openBaseAt } from '../model/model.ts';
import { writeRunFile } from '../run/atomic.ts';
import { findData } from '../trainer/pairs.ts';
import { bytes, counted, duration } from '../words/format.ts';
import type { Experiment } from './config.ts';
import type { Flops } from './costs.ts';
import type { State } from './state.ts';

/** With its length in updates, which a length in passes is only beside its data, or their number. */
async function withSteps(c: RunConfig, known: number | undefined): Promise<RunConfig> {
  if (c.epochs === null) return c;
  const pairs = await findData(c).then(
    (found) => found.pairs.train,
    (error) => {
      if (error instanceof FileError && known !== undefined) return known;
      throw error;
    },
  );
  return { ...c, steps: lengthOf(c, pairs), epochs: null };
}

/** A backend, and how fast it is now. */
type Machine = { readonly backend: Backend; readonly speed: Speed | undefined };

/** In words, and the operations of a run of each method that a plan could be made for. */
export type Foreseen = { readonly lines: readonly string[]; readonly flops: Flops };

/**
 * A line for each method, and one for all runs that are not done; `timed`: with seconds, for which the machine's speed is
 * measured, so that it should be idle.
 * @throws FileError where base or data are not there
 */
export async function costOfExperiment(e: Experiment, states: readonly State[], timed = true): Promise<Foreseen> {
  // opened and measured once, so that methods are told apart by their work alone
  const machines = new Map<string, Machine>();
  const machineOf = async ({ backend: name, threads }: RunConfig): Promise<Machine> => {
    const key = `${name} ${threads}`;
    const known = machines.get(key);
    if (known) return known;
    const backend = await openBackend(name, threads === null ? {} : { threads });
    const made = { backend, speed: timed && hasPlans(backend) ? await speedOf(backend) : undefined };
    machines.set(key, made);
    return made;
  };
  const lines: string[] = [];
  const flops = new Map<string, number>();
  let whole = 0;
  try {
    for (const arm of e.arms) {
      const { backend, speed } = await machineOf(arm.config);
      if (!hasPlans(backend)) {
        lines.push(`${arm.name}: no plan, they are made for wasm and webgpu, not for ${backend.name}`);
        continue;
      }
      const base = await openBaseAt(arm.config.base, arm.config.baseConfig);
      const config = await withSteps(arm.config, e.trainingPairs);
      try {
        const { seconds = 0, bytes: peak, flops: count } = foresee(arm.given, config, base, backend, speed);
        const open = states.filter(({ run, state }) => run.arm === arm && state !== 'done').length;
        whole += open * seconds;
        if (count !== undefined) flops.set(arm.name, count);
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
  return { lines: [...lines, `about ${duration(whole)} for all on this machine idle, one after the other`], flops };
}

const PLANS_FILE = 'plans.json';
const plansSchema = z.record(z.string(), z.number().nullable());

/**
 * The operations of a run of each method, by name, from plans: made once and kept in `plans.json` of the experiment's
 * folder, since planning a large base takes minutes. A method that cannot be planned here has none.
 */
export async function operationsOf(e: Experiment, folder: string): Promise<Flops> {
  const file = path.join(folder, PLANS_FILE);
  const kept = await readFile(file, 'utf8').then(
    (text) => plansSchema.safeParse(JSON.parse(text)).data,
    () => undefined,
  );
  const keyOf = (arm: Experiment['arms'][number]) => `${arm.name} ${JSON.stringify(arm.given)}`;
  const known: Record<string, number | null> = { ...kept };
  const missing = e.arms.filter((arm) => known[keyOf(arm)] === undefined);
  if (missing.length > 0) {
    const made = await costOfExperiment({ ...e, arms: missing }, [], false).catch((error) => {
      // the base or the data may lie on another machine
      if (error instanceof FileError || error instanceof CoreError) return undefined;
      throw error;
    });
    if (made) {
      for (const arm of missing) known[keyOf(arm)] = made.flops.get(arm.name) ?? null;
      await writeRunFile(file, `${JSON.stringify(known, null, 1)}\n`);
    }
  }
  return new Map(
    e.arms.flatMap((arm) => (typeof known[keyOf(arm)] === 'number' ? [[arm.name, known[keyOf(arm)]!]] : [])),
  );
}
