/** Noise schedules and samplers. Reading order: config → schedule → sampler → ddim → the others. */
import { type DdimOptions, ddim } from './ddim.ts';
import { ddpm } from './ddpm.ts';
import { type DpmSolverOptions, dpmSolver } from './dpm-solver.ts';
import { type EulerOptions, euler, eulerAncestral } from './euler.ts';
import { pndm } from './pndm.ts';
import type { Sampler } from './sampler.ts';
import type { Schedule } from './schedule.ts';

export * from './config.ts';
export * from './sampler.ts';
export * from './schedule.ts';
export { ddim, ddpm, dpmSolver, euler, eulerAncestral, pndm };

/** Options of all samplers; each takes its own. */
export type SamplerOptions = DdimOptions & DpmSolverOptions & EulerOptions;

/** Every sampler by the name a person types. */
export const SAMPLERS = {
  ddim,
  pndm,
  'dpm-solver++': dpmSolver,
  euler,
  'euler-ancestral': eulerAncestral,
  ddpm,
} satisfies Record<string, (schedule: Schedule, steps: number, options?: SamplerOptions) => Sampler>;

/** The name of a sampler. */
export type SamplerName = keyof typeof SAMPLERS;
/** The names that `createSampler` takes. */
export const SAMPLER_NAMES = Object.keys(SAMPLERS) as SamplerName[];

/**
 * Makes a sampler by name; options that a sampler does not have are ignored.
 * @throws RangeError for an unknown name or a wrong number of steps
 * @example createSampler('dpm-solver++', makeSchedule(SD15_SCHEDULER), 20, { karras: true })
 */
export function createSampler(name: string, schedule: Schedule, steps: number, options: SamplerOptions = {}): Sampler {
  const make = SAMPLERS[name as SamplerName] as
    | ((schedule: Schedule, steps: number, options: SamplerOptions) => Sampler)
    | undefined;
  if (!Object.hasOwn(SAMPLERS, name) || !make)
    throw new RangeError(`sampler: expected one of ${SAMPLER_NAMES.join(', ')}, found ${JSON.stringify(name)}`);
  return make(schedule, steps, options);
}
