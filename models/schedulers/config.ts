/**
 * The settings of a noise schedule as diffusers writes them to `scheduler/scheduler_config.json`.
 *
 * Unknown keys are ignored (the file holds settings of many classes), known ones are checked.
 */
import { z } from 'zod';

export const PREDICTION_TYPES = ['epsilon', 'v_prediction', 'sample'] as const;
/** What the model predicts: the noise ε, the velocity v = √ᾱ·ε − √(1−ᾱ)·x₀, or the clean sample x₀. */
export type PredictionType = (typeof PREDICTION_TYPES)[number];

const BETA_SCHEDULES = ['scaled_linear', 'linear', 'squaredcos_cap_v2'] as const;

export const TIMESTEP_SPACINGS = ['leading', 'trailing', 'linspace'] as const;

/** A table of more steps than this is refused before it is allocated. */
const MAX_TRAIN_TIMESTEPS = 100_000;

const LINSPACE_CLASSES = /^(DPMSolver|Euler)/;

const oneOf = <const T extends readonly string[]>(values: T) =>
  z.enum(values, { error: (issue) => `expected one of ${values.join(', ')}, found ${JSON.stringify(issue.input)}` });
const beta = z.number().gt(0).lt(1);

const configSchema = z
  .object({
    num_train_timesteps: z.int().min(1).max(MAX_TRAIN_TIMESTEPS).default(1000),
    beta_start: beta.default(0.0001),
    beta_end: beta.default(0.02),
    beta_schedule: oneOf(BETA_SCHEDULES).default('linear'),
    trained_betas: z.array(z.number().gt(0).lte(1)).min(1).max(MAX_TRAIN_TIMESTEPS).nullish(),
    prediction_type: oneOf(PREDICTION_TYPES).default('epsilon'),
    _class_name: z.string().default('PNDMScheduler'),
    timestep_spacing: oneOf(TIMESTEP_SPACINGS).optional(),
    steps_offset: z.int().min(0).max(MAX_TRAIN_TIMESTEPS).default(0),
    set_alpha_to_one: z.boolean().optional(),
    rescale_betas_zero_snr: z.boolean().default(false),
    clip_sample: z.boolean().default(false),
    skip_prk_steps: z.boolean().default(true),
    thresholding: z.boolean().default(false),
  })
  .superRefine((config, context) => {
    const issue = (field: string, message: string) => context.addIssue({ code: 'custom', path: [field], message });
    if (/^FlowMatch/.test(config._class_name))
      issue(
        '_class_name',
        `${config._class_name} is for flow-matching models (Stable Diffusion 3, Flux), not supported`,
      );
    if (config.beta_start > config.beta_end)
      issue('beta_start', `must not exceed beta_end ${config.beta_end}, found ${config.beta_start}`);
    if (config.trained_betas && config.trained_betas.length !== config.num_train_timesteps)
      issue(
        'trained_betas',
        `expected num_train_timesteps = ${config.num_train_timesteps} values, found ${config.trained_betas.length}`,
      );
    if (config.rescale_betas_zero_snr && config.num_train_timesteps < 2)
      issue('rescale_betas_zero_snr', 'needs at least two timesteps, num_train_timesteps is 1');
    if (config.thresholding) issue('thresholding', 'is for pixel models and not supported, expected false');
    if (config.clip_sample) issue('clip_sample', 'is for pixel models and not supported, expected false');
    if (!config.skip_prk_steps) issue('skip_prk_steps', 'Runge-Kutta warm-up is not supported, expected true');
  })
  // What diffusers takes for a missing key depends on the class that reads the file (`spacedBy`); until one does, on
  // the class that wrote it.
  .transform((config) => ({
    ...config,
    spacingGiven: config.timestep_spacing !== undefined,
    timestep_spacing: config.timestep_spacing ?? (LINSPACE_CLASSES.test(config._class_name) ? 'linspace' : 'leading'),
    set_alpha_to_one: config.set_alpha_to_one ?? config._class_name === 'DDIMScheduler',
  }));

/** The checked settings, defaults filled in. */
export type SchedulerConfig = Readonly<z.output<typeof configSchema>>;
/** What a person may write: any subset of the fields. */
export type SchedulerSettings = z.input<typeof configSchema>;

/**
 * Checks the content of a scheduler_config.json.
 * @param file the name that the message starts with
 * @throws Error one line: file, field, what was expected
 * @example parseSchedulerConfig(JSON.parse(text), 'scheduler/scheduler_config.json').prediction_type // 'epsilon'
 */
export function parseSchedulerConfig(json: unknown, file = 'scheduler/scheduler_config.json'): SchedulerConfig {
  const result = configSchema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const where = issue.path.join('.');
  throw new Error(`${file}: ${where ? `${where}: ` : ''}${issue.message}`);
}

/** The settings SD 1.5 ships (PNDM), the default of this project. */
export const SD15_SCHEDULER: SchedulerConfig = parseSchedulerConfig({
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  steps_offset: 1,
});
