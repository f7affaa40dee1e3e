/**
 * Replays one stored sampler trajectory and compares every call.
 *
 * The stored "model" is linear: output k = ½·model_outputs[k] + ½·(scaled sample), so that an error made by one step
 * reaches all later ones.
 */
import { z } from 'zod';
import {
  combine,
  createSampler,
  makeSchedule,
  parseSchedulerConfig,
  runSampler,
  type Sampler,
  type Samples,
} from '../../models/schedulers/index.ts';
import { type GoldenCase, type GoldenTensors, need, relativeError } from './golden.ts';

export const F64_TOLERANCE = 1e-10;
export const F64_WHY = 'both sides f64: only the order of rounding differs, times the number of steps';

const SAMPLER_OF = {
  DDIMScheduler: 'ddim',
  PNDMScheduler: 'pndm',
  DDPMScheduler: 'ddpm',
  DPMSolverMultistepScheduler: 'dpm-solver++',
  EulerDiscreteScheduler: 'euler',
  EulerAncestralDiscreteScheduler: 'euler-ancestral',
} as const;

export const trajectorySchema = z
  .object({
    scheduler: z.enum(Object.keys(SAMPLER_OF) as [keyof typeof SAMPLER_OF]),
    steps: z.int().min(1).max(100_000),
    calls: z.int().min(1).max(100_001),
    eta: z.number().optional(),
    use_karras_sigmas: z.boolean().optional(),
    solver_order: z.union([z.literal(1), z.literal(2)]).optional(),
    solver_type: z.enum(['midpoint', 'heun']).optional(),
    final_sigmas_type: z.enum(['zero', 'sigma_min']).optional(),
    init_noise_sigma: z.number().optional(),
    float32_vs_float64_max_abs: z.number(),
  })
  .loose();
type Trajectory = z.output<typeof trajectorySchema>;

function samplerOf(trajectory: Trajectory, settings: Record<string, unknown>, name: string): Sampler {
  const config = parseSchedulerConfig({ ...settings, ...trajectory, _class_name: trajectory.scheduler }, name);
  const {
    eta,
    use_karras_sigmas: karras,
    solver_order: order,
    solver_type: solver,
    final_sigmas_type: finalSigma,
  } = trajectory;
  return createSampler(SAMPLER_OF[trajectory.scheduler], makeSchedule(config), trajectory.steps, {
    ...(eta !== undefined && { eta }),
    ...(karras !== undefined && { karras }),
    ...(order !== undefined && { order }),
    ...(solver !== undefined && { solver }),
    ...(finalSigma !== undefined && { finalSigma }),
  });
}

/** Runs the stored model through the sampler; all samples, one after the other. */
async function run(
  sampler: Sampler,
  prefix: string,
  tensors: GoldenTensors,
  as: (x: Float64Array) => Samples,
): Promise<number[]> {
  const initial = need(tensors, `${prefix}.initial`).data;
  const outputs = need(tensors, `${prefix}.model_outputs`).data;
  const noise = tensors.get(`${prefix}.noise`)?.data;
  const size = initial.length;
  const slice = (of: Float64Array, call: number) => as(of.subarray(call * size, (call + 1) * size));
  const samples: number[] = [];
  await runSampler(
    sampler,
    (input, _t, call) =>
      combine(input, [
        [0.5, slice(outputs, call)],
        [0.5, input],
      ]),
    as(initial),
    {
      ...(noise && { noise: (call: number) => slice(noise, call) }),
      onStep: (_call, _calls, sample) => samples.push(...sample),
    },
  );
  return samples;
}

/**
 * The cases of one trajectory: timesteps, noise levels, all samples in f64, and all samples kept in f32.
 * @param prefix of the tensor names
 */
export async function* replay(
  name: string,
  prefix: string,
  trajectory: Trajectory,
  settings: Record<string, unknown>,
  tensors: GoldenTensors,
): AsyncGenerator<GoldenCase> {
  const sampler = samplerOf(trajectory, settings, name);
  const f64 = { tolerance: F64_TOLERANCE, why: F64_WHY };
  const expected = need(tensors, `${prefix}.samples`).data;
  yield {
    case: `${name} timesteps`,
    error: relativeError(sampler.timesteps, need(tensors, `${prefix}.timesteps`).data),
    ...f64,
  };
  const sigmas = tensors.get(`${prefix}.sigmas`);
  if (sigmas) yield { case: `${name} sigmas`, error: relativeError(sampler.sigmas ?? [], sigmas.data), ...f64 };
  if (trajectory.init_noise_sigma !== undefined)
    yield {
      case: `${name} init_noise_sigma`,
      error: relativeError([sampler.initNoiseSigma], [trajectory.init_noise_sigma]),
      ...f64,
    };
  yield { case: name, error: relativeError(await run(sampler, prefix, tensors, (x) => x), expected), ...f64 };
  yield {
    case: `${name} f32`,
    error: relativeError(await run(sampler, prefix, tensors, (x) => Float32Array.from(x)), expected),
    // The reference's own float32 run also has a float32 table; ten times its distance allows another order of rounding.
    tolerance: 10 * trajectory.float32_vs_float64_max_abs,
    why: "samples kept in f32: 10 times the distance of the reference's f32 run",
  };
}
