/** A run's settings: one zod schema, the presets of the paper's runs, and the command line that fills it. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { SAMPLER_NAMES } from '../models/schedulers/index.ts';
import { command, type Io } from './cli.ts';
import { parseRatios } from './data/split.ts';
import { LOSS_WEIGHTS, lossWeightSchema } from './loss-weights.ts';
import { LR_SCHEDULES, type LrSchedule, type LrScheduleName, learningRate, lrScheduleSchema } from './lr.ts';

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
    targets: z.string().min(1).default('all-linear'),
    /** the constant s of W0 + s·A·B */
    scale: z.number().gt(0).max(1e3).default(1),
    /** Kaiming slope a of A and of every candidate K */
    gainA: z.number().min(0).max(100).default(0),
    lambda: z.number().min(0).max(1e6).default(1.1),
    testEvery: positive.default(40),
    /** most ranks in all, null for no limit */
    budget: positive.nullable().default(null),
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
    checkpointBlocks: z.boolean().default(false),
    /** how frozen weights are kept in memory */
    weights: z.enum(['auto', 'f16', 'f32']).default('auto'),
    // measuring
    validateEvery: positive.default(100),
    validationPairs: z.int().min(1).max(10_000).default(32),
    saveEvery: positive.default(200),
    samples: z.int().min(0).max(10_000).default(6),
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
    if (c.batch % c.accumulate !== 0) bad('accumulate', `must divide the batch of ${c.batch}`);
    try {
      parseRatios(c.split);
    } catch (error) {
      bad('split', (error as Error).message);
    }
    const weight = lossWeightSchema.safeParse({ name: c.lossWeight, low: c.lossLow, high: c.lossHigh, gamma: c.gamma });
    if (!weight.success) bad('lossLow', weight.error.issues[0]!.message);
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
  /** about five minutes on two cores: few steps need a high rate and timesteps where the words decide */
  phantoms: {
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

/** commander's parser of numbers; their range is the schema's business */
const number = (text: string): number => {
  const x = Number(text);
  if (text.trim() === '' || Number.isNaN(x)) throw new InvalidArgumentError('expected a number');
  return x;
};

const numberOrAuto = (text: string): number | 'auto' => (text === 'auto' ? text : number(text));

const EXAMPLES = [
  '',
  '--method lora --rank 4',
  '--data films/ --base sd15/ --preset iu-xray',
  '--data films/ --targets attn --lambda 1.3 --test-every 20 --budget 400',
  '--base sd15/ --data films/ --resolution 224 --estimate',
  '--resume runs/2026-11-24-phantoms',
];

/** `npm run train -- …`: options in the order one thinks of them. */
export function trainCommand(io: Io): Command {
  return command(
    'train',
    'Fine-tunes a text-to-image diffusion model with SeLoRA (adapters that grow their own ranks) or LoRA.',
    EXAMPLES,
    io,
  )
    .option('--data <dir>', "a folder of pictures with texts; 'phantoms' are built in")
    .option('--base <dir>', 'base model in the diffusers layout, or one .safetensors file (default: models/small-base)')
    .option('--out <dir>', 'run folder (default: runs/<name>)')
    .option('--name <name>', 'name of the run (default: from data, method and time)')
    .option('--resume <dir>', 'go on with a run that was stopped, or with more --steps')
    .addOption(new Option('--preset <name>', "the paper's runs, or the built-in one").choices(Object.keys(runPresets)))
    .option('--method <name>', 'selora or lora')
    .option('--steps <n>', 'updates', number)
    .option('--epochs <n>', 'passes over the training pairs, instead of --steps', number)
    .option('--batch <n>', 'pairs per update', number)
    .option('--accumulate <n>', 'micro-batches per update; auto (default): as few as the memory allows', numberOrAuto)
    .option('--resolution <n>', 'pixels: shortest side, then centre crop', number)
    .option('--split <a/b/c>', 'train/validation/test in percent, grouped by patient')
    .option('--pairs <n>', 'number of built-in pairs', number)
    .option('--seed <n>', 'seed of everything random', number)
    .option('--rank <n>', 'rank at the start (selora) or for good (lora)', number)
    .option('--targets <what>', 'all-linear, paper-code, attn, or globs: **.to_q,text.**.fc1')
    .option('--scale <s>', 'the constant s of W0 + s·A·B', number)
    .option('--gain-a <a>', 'Kaiming slope of A and K: 0 (the authors) or 2.236 (PEFT)', number)
    .option('--lambda <x>', 'a module grows where FI_expanded/FI_original is above this', number)
    .option('--test-every <n>', 'steps between expansion tests', number)
    .option('--budget <n>', 'most ranks in all', number)
    .option('--optimizer <name>', 'adam or adamw')
    .option('--lr <x>', 'learning rate', number)
    .option('--text-lr <x>', 'another rate for the text encoder', number)
    .option('--no-train-text-encoder', 'adapt the U-Net only')
    .option('--weight-decay <x>', 'weight decay', number)
    .option('--schedule <name>', `learning-rate schedule: ${LR_SCHEDULES.join(', ')}`)
    .option('--warmup <n>', 'warm-up steps', number)
    .option('--lr-rules <text>', 'factors of piecewise_constant, e.g. 1:1000,0.1:2000,0.01')
    .option('--clip <x>', 'limit of the gradient norm, 0 for none', number)
    .option('--loss-weight <name>', LOSS_WEIGHTS.join(', '))
    .option('--loss-low <x>', 'lower bound of clip-snr', number)
    .option('--loss-high <x>', 'upper bound of clip-snr', number)
    .option('--gamma <x>', 'γ of min-snr', number)
    .option('--timesteps <how>', 'uniform (the paper), high (mostly 900–999), mixed (high, then uniform)')
    .option('--caption-dropout <p>', 'share of captions left empty, for guidance', number)
    .addOption(
      new Option('--weights <dtype>', 'frozen weights in memory; auto: f16 above 200 million parameters').choices([
        'auto',
        'f16',
        'f32',
      ]),
    )
    .addOption(
      new Option(
        '--checkpoint-blocks [when]',
        'recompute blocks in the backward pass: less memory, more time; auto (default): where it must be',
      )
        .choices(['auto', 'on', 'off'])
        .preset('on'),
    )
    .option('--estimate', 'predict memory and time, and stop')
    .option('--validate-every <n>', 'steps between validations', number)
    .option('--validation-pairs <n>', 'pairs of the validation grid', number)
    .option('--save-every <n>', 'steps between checkpoints', number)
    .option('--samples <n>', 'held-out reports drawn at the end', number)
    .option('--obedience <n>', 'held-out reports drawn and read by detectors (built-in pairs)', number)
    .option('--sampler <name>', SAMPLER_NAMES.join(', '))
    .option('--sample-steps <n>', 'sampling steps', number)
    .option('--guidance <x>', 'classifier-free guidance', number)
    .addOption(
      new Option(
        '--final <which>',
        'adapter, pictures and report: of the best validated step (default) or the last',
      ).choices(['best', 'last']),
    )
    .option('--compare <dir...>', 'finished runs to show beside this one in the report')
    .option('--merged', 'also write base + adapter as a diffusers folder')
    .option('--backend <name>', 'auto, webgpu, wasm, gpujs, cpu')
    .option('--threads <n>', 'threads of the wasm backend', number);
}

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

/** Preset, then the command line on top; checked. */
export function resolveConfig(options: Readonly<Record<string, unknown>>): RunConfig {
  const {
    preset,
    out: _out,
    name: _name,
    resume: _resume,
    estimate: _estimate,
    ...rest
  } = options as Record<string, unknown> & { preset?: keyof typeof runPresets };
  const given = { ...rest, ...memoryOptions(rest) };
  const builtIn = (given.data ?? 'phantoms') === 'phantoms';
  const chosen: Settings = preset ? runPresets[preset] : builtIn ? runPresets.phantoms : {};
  const merged = {
    ...chosen,
    ...(given.epochs === undefined || given.steps !== undefined ? {} : { steps: undefined }),
    ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)),
  };
  if (given.steps !== undefined && given.epochs === undefined) delete (merged as Settings).epochs;
  const result = configSchema.safeParse(merged);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const option = String(issue.path[0] ?? 'options').replace(/[A-Z]/g, (l) => `-${l.toLowerCase()}`);
  throw new RangeError(`--${option}: ${issue.message}`);
}
