/** The learning rates of a run's steps, from its settings. */
import { type LrSchedule, type LrScheduleName, learningRate } from './lr.ts';

/** The settings that rates are made of. */
export type RateSettings = {
  readonly schedule: LrScheduleName;
  readonly lr: number;
  /** null: as the U-Net's */
  readonly textLr: number | null;
  readonly warmup: number;
  readonly lrRules: string | null;
};

/** The learning-rate schedule of a run of so many steps. */
export const lrScheduleOf = (c: Omit<RateSettings, 'textLr'>, steps: number): LrSchedule => ({
  name: c.schedule,
  base: c.lr,
  total: steps,
  warmup: c.warmup,
  ...(c.lrRules === null ? {} : { rules: c.lrRules }),
});

/** The learning rates of step k = 0, 1, … of a run of so many steps. */
export function ratesOf(
  c: RateSettings,
  step: number,
  steps: number,
): { readonly unet: number; readonly text: number } {
  const rate = (lr: number) => learningRate(step, lrScheduleOf({ ...c, lr }, steps));
  return { unet: rate(c.lr), text: rate(c.textLr ?? c.lr) };
}
