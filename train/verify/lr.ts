/** Checks the learning-rate schedules of a golden directory (`methods.json`, entry `optim.lr_schedules`). */
import { z } from 'zod';
import { LR_SCHEDULES, type LrSchedule, learningRate } from '../optimise/lr.ts';
import { type GoldenCase, readGoldenJson } from './golden.ts';

export const LR_FILES = ['methods.json'] as const;

const schema = z.object({
  optim: z.object({
    lr_schedules: z.record(
      z.string(),
      z.object({
        kind: z.enum(LR_SCHEDULES),
        base_lr: z.number(),
        steps: z.int().min(1),
        warmup: z.int().min(0),
        num_cycles: z.number().optional(),
        power: z.number().optional(),
        step_rules: z.string().optional(),
        lr: z.array(z.number()).min(1),
      }),
    ),
  }),
});

/** Largest difference of a whole list, as a share of the base rate. @throws FileError when the file is malformed */
export async function* verifyLr(directory: string): AsyncGenerator<GoldenCase> {
  const { optim } = await readGoldenJson(directory, 'methods.json', schema);
  for (const [name, list] of Object.entries(optim.lr_schedules)) {
    const schedule: LrSchedule = {
      name: list.kind,
      base: list.base_lr,
      total: list.steps,
      warmup: list.warmup,
      ...(list.num_cycles !== undefined && { cycles: list.num_cycles }),
      ...(list.power !== undefined && { power: list.power }),
      ...(list.step_rules !== undefined && { rules: list.step_rules }),
    };
    const errors = list.lr.map((rate, step) => Math.abs(learningRate(step, schedule) - rate) / list.base_lr);
    yield {
      case: `lr ${name}`,
      error: Math.max(...errors),
      tolerance: 1e-12,
      why: 'a few f64 roundings, as a share of the base rate',
    };
  }
}
