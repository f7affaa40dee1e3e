/** A run's settings, each one field with its words; below them what must hold between settings. */
import { z } from 'zod';
import { SAMPLER_NAMES } from '../../models/schedulers/index.ts';
import { LOSS_WEIGHTS, lossWeightSchema } from '../../models/schedulers/loss-weights.ts';
import {
  defaultMethod,
  type MethodSettings,
  methodNames,
  methodProblem,
  methodSettings,
} from '../../selora/methods/registry.ts';
import { parseRatios } from '../data/split.ts';
import { SMALL_BASE_NAME } from '../model/paths.ts';
import { LR_SCHEDULES, lrScheduleSchema } from '../optimise/lr.ts';
import { lrScheduleOf } from '../optimise/rates.ts';
import { optionOf, type Setting, setting, settings } from './setting.ts';

const count = z.int().min(0).max(1e9);
const positive = z.int().min(1).max(1e9);
const rate = z.number().min(0).max(10);

/** settings of the methods, whose words come with them */
type Told<F> = { [K in keyof F]: F[K] extends z.ZodType ? Setting<F[K]> : never };

const fields = settings({
  data: setting(z.string().min(1).default('phantoms'), {
    group: 'Data',
    value: 'dir',
    changeable: 'moved',
    help: "a folder of pictures with texts; 'phantoms' are built in",
  }),
  layout: setting(z.string().min(1).nullable().default(null), {
    group: 'Data',
    value: 'name',
    help: 'settles the layout of the folder where it looks like two',
  }),
  captionColumn: setting(z.string().min(1).nullable().default(null), {
    group: 'Data',
    value: 'name',
    help: 'column of the table that holds the texts, where it has none of the usual names',
  }),
  skipUnreadable: setting(z.boolean().default(false), {
    group: 'Data',
    help: 'trains on the rest where pairs cannot be read; the report names what was left out',
  }),
  stretch: setting(z.boolean().default(false), {
    group: 'Data',
    help: 'films of 10 to 14 bits in files of 16: the greatest number of their bits becomes white (else they are dark)',
  }),
  pairs: setting(z.int().min(20).max(100_000).default(700), { group: 'Data', help: 'number of built-in pairs' }),
  base: setting(z.string().min(1).default(SMALL_BASE_NAME), {
    group: 'Model and adapters',
    value: 'dir',
    changeable: 'moved',
    help: 'base model in the diffusers layout, or one .safetensors file',
  }),
  baseConfig: setting(z.string().min(1).optional(), {
    group: 'Model and adapters',
    value: 'dir',
    changeable: 'moved',
    help: "configurations of a base that is a single file (default: Stable Diffusion 1.5's, or 2.x's where the file says so)",
  }),
  method: setting(z.enum(methodNames).default(defaultMethod), {
    group: 'Model and adapters',
    help: 'what is trained of a layer (selora/methods/README.md tells them apart)',
  }),
  steps: setting(positive.default(1200), { group: 'Optimisation', changeable: true, help: 'updates' }),
  epochs: setting(positive.nullable().default(null), {
    group: 'Optimisation',
    changeable: true,
    help: 'passes over the training pairs, instead of --steps',
  }),
  batch: setting(z.int().min(1).max(4096).default(8), { group: 'Optimisation', help: 'pairs per update' }),
  accumulate: setting(z.int().min(1).max(4096).default(1), {
    group: 'Memory and machine',
    auto: true,
    help: 'micro-batches per update, a divisor of the batch; auto: as few as the memory allows',
  }),
  resolution: setting(z.int().min(8).max(4096).nullable().default(null), {
    group: 'Data',
    help: "pixels: shortest side, then centre crop (default: the base's own)",
  }),
  buckets: setting(z.boolean().default(false), {
    group: 'Data',
    help: 'pictures keep their proportions: each is cropped to the nearest of a few sizes with about as many pixels, and a batch is of one size',
  }),
  split: setting(z.string().default('80/10/10'), {
    group: 'Data',
    value: 'a/b/c',
    help: 'train/validation/test in percent, grouped by patient',
  }),
  seed: setting(z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(1), {
    group: 'Run',
    help: 'seed of everything random',
  }),
  // adapters
  targets: setting(z.string().min(1).default('all-linear'), {
    group: 'Model and adapters',
    value: 'what',
    help: 'all-linear, all (convolutions, too), paper-code, attn, or globs: **.to_q,text.**.fc1',
  }),
  initAdapter: setting(z.string().min(1).nullable().default(null), {
    group: 'Model and adapters',
    value: 'path',
    help: 'begins from this adapter, at its ranks and strength, and goes on growing from there',
  }),
  ...(methodSettings() as Told<MethodSettings>),
  // optimisation
  optimizer: setting(z.enum(['adam', 'adamw']).default('adam'), {
    group: 'Optimisation',
    help: 'adamw: weight decay beside the moments',
  }),
  lr: setting(rate.default(1e-4), { group: 'Optimisation', help: 'learning rate' }),
  textLr: setting(rate.nullable().default(null), {
    group: 'Optimisation',
    help: "another rate for the text encoder (default: the U-Net's)",
  }),
  trainTextEncoder: setting(z.boolean().default(true), { group: 'Model and adapters', help: 'adapt the U-Net only' }),
  weightDecay: setting(rate.default(0), { group: 'Optimisation', help: 'weight decay' }),
  schedule: setting(z.enum(LR_SCHEDULES).default('constant'), {
    group: 'Optimisation',
    help: 'learning-rate schedule',
  }),
  warmup: setting(count.default(0), { group: 'Optimisation', help: 'warm-up steps' }),
  lrRules: setting(z.string().max(10_000).nullable().default(null), {
    group: 'Optimisation',
    help: 'factors of piecewise_constant, e.g. 1:1000,0.1:2000,0.01',
  }),
  clip: setting(z.number().min(0).max(1e6).default(0), {
    group: 'Optimisation',
    help: 'limit of the gradient norm, 0 for none',
  }),
  // loss
  lossWeight: setting(z.enum(LOSS_WEIGHTS).default('plain'), {
    group: 'Loss and noise',
    help: 'how much the loss of a sample counts, by its timestep; plain is the paper',
  }),
  lossLow: setting(z.number().min(0).max(1e6).optional(), {
    group: 'Loss and noise',
    help: 'lower bound of clip-snr (default: 0.05)',
  }),
  lossHigh: setting(z.number().gt(0).max(1e6).optional(), {
    group: 'Loss and noise',
    help: 'upper bound of clip-snr (default: 8)',
  }),
  gamma: setting(z.number().gt(0).max(1e6).optional(), {
    group: 'Loss and noise',
    help: 'γ of min-snr (default: 5)',
  }),
  timesteps: setting(z.enum(['uniform', 'high', 'mixed']).default('uniform'), {
    group: 'Loss and noise',
    value: 'how',
    help: 'uniform is the paper, high mostly 900–999, mixed high and then uniform',
  }),
  noiseOffset: setting(z.number().min(0).max(10).default(0), {
    group: 'Loss and noise',
    help: 'shifts the noise of each latent channel, so that mean brightness is learned; 0.05 to 0.1 is usual',
  }),
  noiseOffsetAdaptive: setting(z.number().min(-10).max(10).default(0), {
    group: 'Loss and noise',
    help: "adds this times a channel's mean brightness to --noise-offset",
  }),
  captionDropout: setting(z.number().min(0).max(1).default(0), {
    group: 'Loss and noise',
    value: 'p',
    help: 'share of captions left empty, for guidance',
  }),
  captionChunks: setting(z.int().min(1).max(64).default(1), {
    group: 'Data',
    help: 'pieces of 77 ids that a caption may take; the rest is cut',
  }),
  checkpointBlocks: setting(z.boolean().default(false), {
    group: 'Memory and machine',
    value: 'when',
    auto: true,
    help: 'recompute blocks in the backward pass: less memory, more time; auto: where it must be',
  }),
  weights: setting(z.enum(['auto', 'f16', 'f32', 'nf4']).default('auto'), {
    group: 'Memory and machine',
    value: 'dtype',
    help: 'frozen weights in memory; auto: f16 above 200 million parameters; nf4: 4 bits with doubly quantised scales (QLoRA), rounded',
  }),
  checkFinite: setting(z.boolean().default(false), {
    group: 'Run',
    changeable: true,
    help: 'looks at every value of every step and names the first that is NaN or infinite: op, module, sample, timestep; slower',
  }),
  // measuring
  validateEvery: setting(positive.default(100), {
    group: 'Measuring and saving',
    help: 'steps between validations',
  }),
  validationPairs: setting(z.int().min(1).max(10_000).default(32), {
    group: 'Measuring and saving',
    help: 'pairs of the validation grid',
  }),
  saveEvery: setting(positive.default(200), {
    group: 'Measuring and saving',
    changeable: true,
    help: 'steps between checkpoints',
  }),
  samples: setting(z.int().min(0).max(10_000).default(6), {
    group: 'Pictures and report',
    changeable: true,
    help: 'held-out reports drawn at the end',
  }),
  sampleEvery: setting(positive.nullable().default(null), {
    group: 'Pictures and report',
    changeable: true,
    help: 'steps between pictures of them while the run goes on (default: none)',
  }),
  obedience: setting(z.int().min(0).max(10_000).default(48), {
    group: 'Pictures and report',
    changeable: true,
    help: 'held-out reports drawn and read by detectors (built-in pairs)',
  }),
  sampler: setting(z.enum(SAMPLER_NAMES).default('ddim'), {
    group: 'Pictures and report',
    changeable: true,
    help: 'how noise is removed',
  }),
  sampleSteps: setting(z.int().min(1).max(1000).default(20), {
    group: 'Pictures and report',
    changeable: true,
    help: 'sampling steps',
  }),
  guidance: setting(z.number().min(0).max(100).default(3), {
    group: 'Pictures and report',
    changeable: true,
    help: 'classifier-free guidance',
  }),
  merged: setting(z.boolean().default(false), {
    group: 'Pictures and report',
    changeable: true,
    help: 'also write base + adapter as a diffusers folder',
  }),
  public: setting(z.boolean().default(false), {
    group: 'Pictures and report',
    changeable: true,
    help: 'adapter files and merged model readable by others (the run folder itself stays private)',
  }),
  final: setting(z.enum(['best', 'last']).default('best'), {
    group: 'Pictures and report',
    value: 'which',
    changeable: true,
    help: 'adapter, pictures and report: of the best validated step or the last',
  }),
  compare: setting(z.array(z.string()).max(20).default([]), {
    group: 'Pictures and report',
    value: 'dir',
    changeable: true,
    help: 'finished runs to show beside this one in the report',
  }),
  // machine
  backend: setting(z.enum(['auto', 'webgpu', 'wasm', 'gpujs', 'cpu']).default('auto'), {
    group: 'Memory and machine',
    help: 'where to compute; auto: a GPU where there is one, else wasm',
  }),
  threads: setting(z.int().min(1).max(1024).nullable().default(null), {
    group: 'Memory and machine',
    changeable: true,
    help: 'threads of the wasm backend, same bits for any (default: all cores)',
  }),
});

export const configSchema = fields.superRefine((c, context) => {
  const bad = (path: keyof typeof c, message: string) => context.addIssue({ code: 'custom', path: [path], message });
  const problem = methodProblem(c);
  if (problem) bad(problem.path as keyof typeof c, problem.message);
  if (c.batch % c.accumulate !== 0) bad('accumulate', `must divide the batch of ${c.batch}`);
  try {
    parseRatios(c.split);
  } catch (error) {
    bad('split', (error as Error).message);
  }
  const weight = lossWeightSchema.safeParse({ name: c.lossWeight, low: c.lossLow, high: c.lossHigh, gamma: c.gamma });
  if (!weight.success) bad('lossLow', weight.error.issues[0]!.message);
  for (const [key, owner, value] of [
    ['gamma', 'lossWeight', 'min-snr'],
    ['lossLow', 'lossWeight', 'clip-snr'],
    ['lossHigh', 'lossWeight', 'clip-snr'],
    ['lrRules', 'schedule', 'piecewise_constant'],
  ] as const)
    if ((c[key] ?? null) !== null && c[owner] !== value) bad(key, `belongs to ${optionOf(owner)} ${value}`);
  if (c.noiseOffsetAdaptive !== 0 && c.noiseOffset === 0) bad('noiseOffsetAdaptive', 'belongs to --noise-offset');
  const schedule = lrScheduleSchema.safeParse(lrScheduleOf(c, c.steps));
  if (!schedule.success) bad(c.schedule === 'piecewise_constant' ? 'lrRules' : 'lr', schedule.error.issues[0]!.message);
});

/** The settings of a run, complete. */
export type RunConfig = z.output<typeof configSchema>;
/** Settings as they are given: what is left out is the default. */
export type Settings = Partial<z.input<typeof configSchema>>;
