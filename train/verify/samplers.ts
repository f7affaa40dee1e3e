/** Checks the DPM-Solver++, Euler and zero-SNR trajectories of a golden directory (`samplers.*`). */
import { join } from 'node:path';
import { z } from 'zod';
import { failedCase, type GoldenCase, readGoldenJson, readGoldenTensors } from './golden.ts';
import { replay, trajectorySchema } from './trajectory.ts';

export const SAMPLER_FILES = ['samplers.json', 'samplers.safetensors'] as const;

const schema = z.object({
  settings: z.record(z.string(), z.unknown()),
  trajectories: z.record(z.string(), trajectorySchema),
});

/** @throws Error one line when a file or a tensor is missing or malformed */
export async function* verifySamplers(directory: string): AsyncGenerator<GoldenCase> {
  const json = await readGoldenJson(directory, 'samplers.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'samplers.safetensors'));
  for (const [name, trajectory] of Object.entries(json.trajectories))
    try {
      yield* replay(name, name, trajectory, json.settings, tensors);
    } catch (error) {
      yield failedCase(name, error);
    }
}
