/**
 * Learning rate of every step, as pure functions of the step number.
 *
 * With a warm-up of w steps, step k < w has base·k/w, so the very first step has rate 0 (the reference's scheduler moves
 * after the optimizer). Let p = (k−w)/(total−w) be the progress after it:
 *
 *   linear  base·(1−p)      cosine  base·½(1+cos 2πcp), c = ½      cosine_with_restarts  base·½(1+cos π(cp mod 1))
 *   polynomial  (base−end)·(1−p)^power + end
 *
 * `constant` and `piecewise_constant` have no warm-up. Source: diffusers `get_scheduler`.
 */
import { z } from 'zod';

export const LR_SCHEDULES = [
  'constant',
  'constant_with_warmup',
  'linear',
  'cosine',
  'cosine_with_restarts',
  'polynomial',
  'piecewise_constant',
] as const;
export type LrScheduleName = (typeof LR_SCHEDULES)[number];

export type LrSchedule = {
  readonly name: LrScheduleName;
  /** The rate after warm-up. */
  readonly base: number;
  /** Number of steps of the run. */
  readonly total: number;
  /** Number of warm-up steps. */
  readonly warmup?: number;
  /** Waves of cosine (½: half a wave down to 0) or restarts of cosine_with_restarts (1). */
  readonly cycles?: number;
  /** Exponent of polynomial (1). */
  readonly power?: number;
  /** Last rate of polynomial (1e-7). */
  readonly end?: number;
  /** Factors of piecewise_constant: `factor:until` pairs and a last factor, e.g. `1:1000,0.1:2000,0.01`. */
  readonly rules?: string;
};

const count = z
  .int()
  .min(0)
  .max(2 ** 31);
/** The same for settings from outside (command line, config file). */
export const lrScheduleSchema = z
  .object({
    name: z.enum(LR_SCHEDULES).default('constant'),
    base: z.number().min(0).max(1e3),
    total: count,
    warmup: count.optional(),
    cycles: z.number().gt(0).max(1e6).optional(),
    power: z.number().min(0).max(1e3).optional(),
    end: z.number().min(0).max(1e3).optional(),
    rules: z.string().max(10_000).optional(),
  })
  .superRefine(({ name, rules, base, end }, context) => {
    if (name === 'piecewise_constant')
      try {
        parseRules(rules ?? '');
      } catch (error) {
        context.addIssue({ code: 'custom', path: ['rules'], message: (error as Error).message });
      }
    if (name === 'polynomial' && (end ?? POLYNOMIAL_END) > base)
      context.addIssue({
        code: 'custom',
        path: ['end'],
        message: `must not exceed base ${base}, found ${end ?? POLYNOMIAL_END}`,
      });
  });

const POLYNOMIAL_END = 1e-7;

type Rules = { readonly pieces: readonly { readonly until: number; readonly factor: number }[]; readonly last: number };

/** @throws Error for text that is not `factor:until,…,factor` */
function parseRules(text: string): Rules {
  const bad = () => new Error(`expected factor:until,…,factor, for example 1:1000,0.1; found ${JSON.stringify(text)}`);
  const number = (part: string | undefined): number => {
    if (part === undefined || !/^\d*\.?\d+(e-?\d+)?$/i.test(part.trim())) throw bad();
    return Number(part);
  };
  const parts = text.split(',');
  const last = number(parts.pop());
  const pieces = parts.map((part) => {
    const [factor, until, ...rest] = part.split(':');
    if (rest.length > 0) throw bad();
    return { factor: number(factor), until: number(until) };
  });
  return { pieces: pieces.toSorted((a, b) => a.until - b.until), last };
}

/**
 * Rate of step k = 0, 1, …; past the end it is what the formula gives there (0 for linear, a rise for cosine).
 * @throws Error when `rules` of piecewise_constant is malformed
 * @example learningRate(0, { name: 'linear', base: 1e-4, total: 12 }) // 1e-4
 */
export function learningRate(step: number, schedule: LrSchedule): number {
  const { name, base, total, warmup = 0 } = schedule;
  if (name === 'constant') return base;
  if (name === 'piecewise_constant') {
    const { pieces, last } = parseRules(schedule.rules ?? '');
    return base * (pieces.find(({ until }) => step < until)?.factor ?? last);
  }
  if (step < warmup) return (base * step) / Math.max(1, warmup);
  if (name === 'constant_with_warmup') return base;
  const progress = (step - warmup) / Math.max(1, total - warmup);
  if (name === 'linear') return base * Math.max(0, 1 - progress);
  if (name === 'cosine')
    return base * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (schedule.cycles ?? 0.5) * 2 * progress)));
  if (name === 'cosine_with_restarts')
    return progress >= 1
      ? 0
      : base * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (((schedule.cycles ?? 1) * progress) % 1))));
  const { end = POLYNOMIAL_END, power = 1 } = schedule;
  return step > total ? end : (base - end) * (1 - progress) ** power + end;
}
