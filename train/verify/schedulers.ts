/** Checks the noise schedule and the DDIM, PNDM and DDPM trajectories of a golden directory (`schedulers.*`). */
import { join } from 'node:path';
import { z } from 'zod';
import { addNoise, getVelocity, makeSchedule, parseSchedulerConfig } from '../../models/schedulers/index.ts';
import { failedCase, type GoldenCase, need, readGoldenJson, readGoldenTensors, relativeError } from './golden.ts';
import { F64_TOLERANCE, F64_WHY, replay, trajectorySchema } from './trajectory.ts';

export const SCHEDULER_FILES = ['schedulers.json', 'schedulers.safetensors'] as const;

const schema = z.object({
  settings: z.record(z.string(), z.unknown()),
  trajectories: z.record(z.string(), trajectorySchema),
});

/** @throws Error one line when a file or a tensor is missing or malformed */
export async function* verifySchedulers(directory: string): AsyncGenerator<GoldenCase> {
  const json = await readGoldenJson(directory, 'schedulers.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'schedulers.safetensors'));
  const schedule = makeSchedule(parseSchedulerConfig(json.settings, 'schedulers.json settings'));
  const f64 = (name: string, actual: ArrayLike<number>): GoldenCase => ({
    case: name,
    error: relativeError(actual, need(tensors, name).data),
    tolerance: F64_TOLERANCE,
    why: F64_WHY,
  });

  yield f64('betas', schedule.betas);
  yield f64('alphas_cumprod', schedule.alphasCumprod);
  if (tensors.has('add_noise.sample')) {
    const [sample, noise, timesteps] = ['sample', 'noise', 'timesteps'].map(
      (n) => need(tensors, `add_noise.${n}`).data,
    );
    yield f64('add_noise.output', addNoise(schedule, sample!, noise!, timesteps!));
    yield f64('get_velocity.output', getVelocity(schedule, sample!, noise!, timesteps!));
  }
  for (const [name, trajectory] of Object.entries(json.trajectories))
    try {
      yield* replay(name, `traj.${name}`, trajectory, json.settings, tensors);
    } catch (error) {
      yield failedCase(name, error);
    }
}
