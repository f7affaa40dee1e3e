/** A run's settings: one zod schema and the presets of the paper's runs. The command line that fills it: options.ts. */
import { z } from 'zod';
import { quoted } from '../../models/io/error.ts';
import { SAMPLER_NAMES } from '../../models/schedulers/index.ts';
import { LOSS_WEIGHTS, lossWeightSchema } from '../../models/schedulers/loss-weights.ts';
import { parseRatios } from '../data/split.ts';
import { LR_SCHEDULES, type LrSchedule, type LrScheduleName, learningRate, lrScheduleSchema } from '../optimise/lr.ts';

const count = z.int().min(0).max(1e9);
const positive = z.int().min(1).max(1e9);
const rate = z.number().min(0).max(10);

export const configSchema = z
  .strictObject({
    /** `phantoms` for the built-in pairs, or a folder */
    data: z.string().min(1).default('phantoms'),
    /** number of built-in pairs */
    pairs: z.int().min(20).max(100_000).default(700),
    base: z.string().min(1).default('models/small-base'),
    method: z.enum(['selora', 'lora']).default('selora'),
    steps: positive.default(1200),
    /** instead of steps: passes over the training pairs */
    epochs: positive.nullable().default(null),
    batch: z.int().min(1).max(4096).default(8),
    /** micro-batches per update; batch must divide by it */
    accumulate: z.int().min(1).max(4096).default(1),
    resolution: z.int().min(8).max(4096).nullable().default(null),
    split: z.string().default('80/10/10'),
    seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(1),
    // adapters
    rank: z.int().min(1).max(1024).default(1),
    /** other ranks at the start for some modules: `pattern=rank,…`, the last match counts */
    ranks: z.string().min(1).max(10_000).nullable().default(null),
    targets: z.string().min(1).default('all-linear'),
    /** the constant s of W0 + s·A·B */
    scale: z.number().gt(0).max(1e3).default(1),
    /** Kaiming slope a of A and of every candidate K */
    gainA: z.number().min(0).max(100).default(0),
    lambda: z.number().min(0).max(1e6).default(1.1),
    testEvery: positive.default(40),
    /** most ranks in all, null for no limit */
    budget: positive.nullable().default(null),
    /** what is squared: the gradient of each sample, then averaged (eq. 3), or the batch gradient (the published code) */
    fisher: z.enum(['per-sample', 'batch']).default('per-sample'),
    /** batches whose scores are averaged at a test; the first is the step's own */
    fiBatches: z.int().min(1).max(1000).default(1),
    /** β of the mean over a module's tests; 0: each test for itself */
    fiEma: z.number().min(0).max(0.9999).default(0),
    /** timesteps of the batches of a test: drawn as always, or one from each of equally likely layers */
    fiTimesteps: z.enum(['drawn', 'stratified']).default('drawn'),
    criterion: z.enum(['fi-ratio', 'fi-snr', 'loss-decrease']).default('fi-ratio'),
    /** the expansion procedure of the published code, faults included, to compare with */
    compat: z.enum(['none', 'published-code']).default('none'),
    // optimisation
    optimizer: z.enum(['adam', 'adamw']).default('adam'),
    lr: rate.default(1e-4),
    textLr: rate.nullable().default(null),
    trainTextEncoder: z.boolean().default(true),
    weightDecay: rate.default(0),
    schedule: z.enum(LR_SCHEDULES).default('constant'),
    warmup: count.default(0),
    /** factors of piecewise_constant: `1:1000,0.1` */
    lrRules: z.string().max(10_000).nullable().default(null),
    clip: z.number().min(0).max(1e6).default(0),
    lossWeight: z.enum(LOSS_WEIGHTS).default('plain'),
    lossLow: z.number().min(0).max(1e6).optional(),
    lossHigh: z.number().gt(0).max(1e6).optional(),
    gamma: z.number().gt(0).max(1e6).optional(),
    timesteps: z.enum(['uniform', 'high', 'mixed']).default('uniform'),
    captionDropout: z.number().min(0).max(1).default(0),
    /** pieces of 77 ids that a caption may take */
    captionChunks: z.int().min(1).max(64).default(1),
    checkpointBlocks: z.boolean().default(false),
    /** how frozen weights are kept in memory */
    weights: z.enum(['auto', 'f16', 'f32']).default('auto'),
    // measuring
    validateEvery: positive.default(100),
    validationPairs: z.int().min(1).max(10_000).default(32),
    saveEvery: positive.default(200),
    samples: z.int().min(0).max(10_000).default(6),
    /** steps between pictures of those reports while the run goes on, null for none */
    sampleEvery: positive.nullable().default(null),
    /** held-out reports drawn and read by the detectors (built-in pairs only) */
    obedience: z.int().min(0).max(10_000).default(48),
    sampler: z.enum(SAMPLER_NAMES as [string, ...string[]]).default('ddim'),
    sampleSteps: z.int().min(1).max(1000).default(20),
    guidance: z.number().min(0).max(100).default(3),
    merged: z.boolean().default(false),
    /** which weights the run ends with */
    final: z.enum(['best', 'last']).default('best'),
    /** finished run folders to show beside this one */
    compare: z.array(z.string()).max(20).default([]),
    // machine
    backend: z.enum(['auto', 'webgpu', 'wasm', 'gpujs', 'cpu']).default('auto'),
    threads: z.int().min(1).max(1024).nullable().default(null),
  })
  .superRefine((c, context) => {
    const bad = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message });
    if (c.criterion !== 'fi-ratio' && c.fisher === 'batch')
      bad('criterion', `${c.criterion} needs the gradients of single samples, not --fisher batch`);
    if (c.criterion !== 'fi-ratio' && c.batch * c.fiBatches < 2)
      bad('criterion', `${c.criterion} needs two samples or more: raise --batch or --fi-batches`);
    if (c.compat === 'published-code' && c.fisher !== 'batch')
      bad('fisher', '--compat published-code squares the batch gradient: batch');
    for (const [key, plain] of [
      ['fiBatches', 1],
      ['fiEma', 0],
      ['criterion', 'fi-ratio'],
      ['method', 'selora'],
    ] as const)
      if (c.compat === 'published-code' && c[key] !== plain) bad(key, `is ${plain} with --compat published-code`);
    if (c.batch % c.accumulate !== 0) bad('accumulate', `must divide the batch of ${c.batch}`);
    try {
      parseRatios(c.split);
    } catch (error) {
      bad('split', (error as Error).message);
    }
    const weight = lossWeightSchema.safeParse({ name: c.lossWeight, low: c.lossLow, high: c.lossHigh, gamma: c.gamma });
    if (!weight.success) bad('lossLow', weight.error.issues[0]!.message);
    if (c.gamma !== undefined && c.lossWeight !== 'min-snr') bad('gamma', 'belongs to --loss-weight min-snr');
    for (const key of ['lossLow', 'lossHigh'] as const)
      if (c[key] !== undefined && c.lossWeight !== 'clip-snr') bad(key, 'belongs to --loss-weight clip-snr');
    if (c.lrRules !== null && c.schedule !== 'piecewise_constant')
      bad('lrRules', 'belongs to --schedule piecewise_constant');
    const schedule = lrScheduleSchema.safeParse(lrScheduleOf(c, c.steps));
    if (!schedule.success)
      bad(c.schedule === 'piecewise_constant' ? 'lrRules' : 'lr', schedule.error.issues[0]!.message);
  });

/** The learning-rate schedule of a run of so many steps. */
export const lrScheduleOf = (
  c: {
    readonly schedule: LrScheduleName;
    readonly lr: number;
    readonly warmup: number;
    readonly lrRules: string | null;
  },
  steps: number,
): LrSchedule => ({
  name: c.schedule,
  base: c.lr,
  total: steps,
  warmup: c.warmup,
  ...(c.lrRules === null ? {} : { rules: c.lrRules }),
});

export type RunConfig = z.output<typeof configSchema>;
type Settings = Partial<z.input<typeof configSchema>>;

/** The paper's runs (appendix B) and the built-in one. */
export const runPresets = {
  /** about six minutes on two cores: few steps need a high rate and timesteps where the words decide */
  phantoms: {
    steps: 2000,
    lr: 3e-3,
    schedule: 'cosine',
    warmup: 20,
    testEvery: 20,
    timesteps: 'mixed',
    captionDropout: 0.1,
    clip: 1,
    resolution: 128,
  },
  'iu-xray': {
    resolution: 224,
    split: '80/16/4',
    epochs: 10,
    batch: 8,
    lambda: 1.1,
    testEvery: 40,
    guidance: 7.5,
    sampler: 'pndm',
    sampleSteps: 50,
  },
  montgomery: {
    resolution: 224,
    split: '80/20',
    epochs: 100,
    batch: 8,
    lambda: 1.1,
    testEvery: 40,
    guidance: 7.5,
    sampler: 'pndm',
    sampleSteps: 50,
  },
  patchgastric: {
    resolution: 224,
    split: '70/10/20',
    epochs: 10,
    batch: 8,
    lambda: 1.1,
    testEvery: 40,
    guidance: 7.5,
    sampler: 'pndm',
    sampleSteps: 50,
  },
} as const satisfies Record<string, Settings>;

/** What the published code trains with, where nothing else is asked for: its module names, alpha 8 at rank 1, its square. */
const PUBLISHED: Settings = { fisher: 'batch', targets: 'paper-code', scale: 8 };

/** The learning rates of step k = 0, 1, … of a run of so many steps. */
export function ratesOf(
  c: Pick<RunConfig, 'schedule' | 'lr' | 'textLr' | 'warmup' | 'lrRules'>,
  step: number,
  steps: number,
): { readonly unet: number; readonly text: number } {
  const rate = (lr: number) => learningRate(step, lrScheduleOf({ ...c, lr }, steps));
  return { unet: rate(c.lr), text: rate(c.textLr ?? c.lr) };
}

/** Settings that `auto` leaves to the plan of the run, as the configuration holds them once they are chosen. */
const memoryOptions = (o: Readonly<Record<string, unknown>>): Record<string, unknown> => ({
  accumulate: o.accumulate === 'auto' ? undefined : o.accumulate,
  checkpointBlocks:
    o.checkpointBlocks === 'auto'
      ? undefined
      : typeof o.checkpointBlocks === 'string'
        ? o.checkpointBlocks === 'on'
        : o.checkpointBlocks,
});
/** Which of them are to be chosen. */
export const openSettings = (o: Readonly<Record<string, unknown>>) => ({
  accumulate: memoryOptions(o).accumulate === undefined,
  checkpointBlocks: memoryOptions(o).checkpointBlocks === undefined,
});

/** What is wrong with a setting: `is 0, expected at least 1`. */
function problemOf(issue: z.core.$ZodIssue, value: unknown): string {
  const is = `is ${typeof value === 'string' ? quoted(value, 60) : String(value)}, expected`;
  switch (issue.code) {
    case 'too_small':
      return `${is} ${issue.origin === 'string' ? 'a text' : `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`}`;
    case 'too_big':
      return `${is} at most ${issue.maximum}${issue.origin === 'string' ? ' characters' : ''}`;
    case 'invalid_type':
      return `${is} ${issue.expected === 'int' ? 'a whole number' : `a ${issue.expected}`}`;
    case 'invalid_value':
      return `${is} ${issue.values.join(', ')}`;
    default:
      return issue.message;
  }
}

/** Preset, then the command line on top; checked. */
export function resolveConfig(options: Readonly<Record<string, unknown>>): RunConfig {
  const {
    preset,
    out: _out,
    name: _name,
    resume: _resume,
    memory: _memory,
    estimate: _estimate,
    ...rest
  } = options as Record<string, unknown> & { preset?: keyof typeof runPresets };
  const given = { ...rest, ...memoryOptions(rest) };
  const builtIn = (given.data ?? 'phantoms') === 'phantoms';
  const chosen: Settings = preset ? runPresets[preset] : builtIn ? runPresets.phantoms : {};
  const merged = {
    ...chosen,
    ...(given.compat === 'published-code' ? PUBLISHED : {}),
    ...(given.epochs === undefined || given.steps !== undefined ? {} : { steps: undefined }),
    ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)),
  };
  if (given.steps !== undefined && given.epochs === undefined) delete (merged as Settings).epochs;
  const result = configSchema.safeParse(merged);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const key = String(issue.path[0] ?? 'options');
  const option = key.replace(/[A-Z]/g, (l) => `-${l.toLowerCase()}`);
  throw new RangeError(`--${option}: ${problemOf(issue, (merged as Record<string, unknown>)[key])}`);
}
