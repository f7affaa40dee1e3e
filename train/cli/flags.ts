/** The command line of `npm run train`. Ranges and defaults are the schema's business (config.ts). */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { SAMPLER_NAMES } from '../../models/schedulers/index.ts';
import { LOSS_WEIGHTS } from '../../models/schedulers/loss-weights.ts';
import { type RunConfig, resolveConfig, runPresets } from '../config/config.ts';
import { LR_SCHEDULES } from '../optimise/lr.ts';
import { command, type Io } from './command.ts';

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
    .option('--ranks <list>', 'ranks by hand where they differ: **.attn2.**=4,text.**=2')
    .option('--targets <what>', 'all-linear, paper-code, attn, or globs: **.to_q,text.**.fc1')
    .option('--scale <s>', 'the constant s of W0 + s·A·B', number)
    .option('--gain-a <a>', 'Kaiming slope of A and K: 0 (the authors) or 2.236 (PEFT)', number)
    .option('--lambda <x>', 'a module grows where FI_expanded/FI_original is above this', number)
    .option('--test-every <n>', 'steps between expansion tests', number)
    .option('--budget <n>', 'most ranks in all', number)
    .option('--fisher <what>', 'squares per-sample gradients (eq. 3, default) or the batch gradient: per-sample, batch')
    .option('--fi-batches <n>', 'batches whose scores are averaged at a test', number)
    .option('--fi-ema <beta>', 'smooths the scores of a module over its tests, until it grows; 0: not', number)
    .option('--fi-timesteps <how>', 'timesteps of the batches of a test: drawn or stratified')
    .option('--criterion <name>', 'what is compared with lambda: fi-ratio (the paper), fi-snr, loss-decrease')
    .option('--compat <what>', 'published-code: expand as the published code does, faults included; none')
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
    .option('--caption-chunks <n>', 'pieces of 77 ids that a caption may take (default: 1, the rest is cut)', number)
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
    .option(
      '--memory <GiB>',
      'what the backend may take; default: all that is free (a graphics card does not tell)',
      number,
    )
    .option('--estimate', 'predict memory and time, and stop')
    .option('--validate-every <n>', 'steps between validations', number)
    .option('--validation-pairs <n>', 'pairs of the validation grid', number)
    .option('--save-every <n>', 'steps between checkpoints', number)
    .option('--samples <n>', 'held-out reports drawn at the end', number)
    .option('--sample-every <n>', 'steps between pictures of them while the run goes on', number)
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

const quoted = (text: string): string => (/^[\w./:,=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/**
 * The command that begins a run with these settings: what differs from the defaults for its data.
 * @example commandOf(config) // npm run train -- --data films --lr 0.0003 --steps 2000
 */
export function commandOf(c: RunConfig): string {
  const plain = resolveConfig({ data: c.data });
  const words = Object.entries(c).flatMap(([key, value]): readonly string[] => {
    const option = `--${key.replace(/[A-Z]/g, (l) => `-${l.toLowerCase()}`)}`;
    if (key === 'data') return value === 'phantoms' ? [] : [option, quoted(String(value))];
    // a run in epochs has no use for its number of steps
    if (value === undefined || value === null || (key === 'steps' && c.epochs !== null)) return [];
    if (JSON.stringify(value) === JSON.stringify(plain[key as keyof RunConfig])) return [];
    if (key === 'trainTextEncoder') return ['--no-train-text-encoder'];
    if (key === 'checkpointBlocks') return [option, value ? 'on' : 'off'];
    if (value === true) return [option];
    return [option, ...(Array.isArray(value) ? value : [value]).map((v) => quoted(String(v)))];
  });
  return ['npm run train', ...(words.length > 0 ? ['--', ...words] : [])].join(' ');
}
