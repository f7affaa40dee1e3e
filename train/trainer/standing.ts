/** Where a run stands between two steps: at its beginning, or as a checkpoint left it. */
import { z } from 'zod';
import type { Backend } from '../../core/index.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import type { Checkpoint } from '../run/checkpoint.ts';
import { bestFrom, type HostModules, ranksSchema, stateFrom } from '../run/tensors.ts';
import { type Memories, memoriesSchema } from '../step/growth.ts';
import { type Chosen, startState } from '../step/ranks.ts';
import type { PerModule, State } from '../step/state.ts';

const stepNumber = z.int().min(0);
const progressSchema = z.object({
  step: stepNumber,
  ranks: ranksSchema,
  /** what the method remembers of its tests, by module; checked by the method */
  memories: z.record(z.string(), z.unknown()).default({}),
  best: z.object({ step: stepNumber, loss: z.number() }).nullable(),
  /** frozen base on the validation grid: true and shuffled reports */
  baseline: z
    .object({
      loss: z.number(),
      shuffled: z.number(),
      gapError: z.number().optional(),
      byTimestep: z.array(z.object({ t: z.number(), loss: z.number() })).optional(),
    })
    .nullable(),
  seconds: z.number().min(0),
});
/** What the host remembers between steps; with the state's tensors it is the whole run. */
export type Progress = z.output<typeof progressSchema>;

/** The best validated weights so far. */
export type Best = { readonly step: number; readonly loss: number; readonly adapters: HostModules };

/** A run between two steps. */
export type Standing = {
  readonly state: State;
  readonly memories: Memories;
  readonly progress: Progress;
  readonly best: Best | null;
};

/** The run as its checkpoint left it, or before its first step. @throws ZodError for a checkpoint of another program */
export function standingOf(
  checkpoint: Checkpoint | undefined,
  chosen: Chosen,
  seed: number,
  linears: ModelPlaces,
  backend: Backend,
  kept?: PerModule<unknown>,
): Standing {
  if (!checkpoint) {
    const { state, ranks } = startState({ ...chosen, seed }, linears, backend, kept);
    const progress: Progress = { step: 0, ranks, memories: {}, best: null, baseline: null, seconds: 0 };
    return { state, memories: memoriesSchema(chosen.method).parse({}), progress, best: null };
  }
  const progress = progressSchema.parse(checkpoint.info);
  return {
    state: stateFrom(chosen, checkpoint.tensors, progress.ranks, linears),
    memories: memoriesSchema(chosen.method).parse(progress.memories),
    progress,
    best: progress.best && { ...progress.best, adapters: bestFrom(chosen, checkpoint.tensors, linears) },
  };
}
