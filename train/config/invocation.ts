/** What a run is started with beside its settings: where it goes, or which one goes on. None of it is in config.json. */
import { z } from 'zod';
import { PRESET_NAMES } from './presets.ts';
import { setting, settings } from './setting.ts';

export const startSchema = settings({
  out: setting(z.string().min(1).optional(), {
    group: 'Run',
    value: 'dir',
    help: 'run folder, new or empty (default: runs/<name>)',
  }),
  name: setting(z.string().min(1).max(200).optional(), {
    group: 'Run',
    value: 'name',
    help: 'name of the run (default: from time, data and method)',
  }),
  resume: setting(z.string().min(1).optional(), {
    group: 'Run',
    value: 'dir',
    help: 'go on with a run that was stopped, or with more --steps',
  }),
  preset: setting(z.enum(PRESET_NAMES).optional(), { group: 'Run', help: "the paper's runs, or the built-in one" }),
  dataParallel: setting(z.enum(['mpi']).optional(), {
    group: 'Memory and machine',
    help: 'mpirun -n N npm run train -- --data-parallel mpi: N processes share every batch, with the bits of one with --accumulate N',
  }),
  estimate: setting(z.boolean().default(false), {
    group: 'Memory and machine',
    help: 'predict memory and time, and stop',
  }),
  watch: setting(z.boolean().default(false), {
    group: 'Run',
    help: 'show the run in a browser while it goes on, on 127.0.0.1 only',
  }),
  memory: setting(z.number().gt(0).max(1e6).optional(), {
    group: 'Memory and machine',
    value: 'GiB',
    help: 'what the backend may take (default: all that is free; a graphics card does not tell)',
  }),
});
/** How a run is started. */
export type StartOptions = z.output<typeof startSchema>;
