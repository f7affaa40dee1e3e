/** A run's settings: the paper's defaults, presets under the command line, one line for every mistake. */
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { errorLine, parseArgs } from '../../../train/cli/command.ts';
import { commandOf, trainCommand } from '../../../train/cli/flags.ts';
import { configSchema, ratesOf, resolveConfig, runPresets } from '../../../train/config/config.ts';

const stream = new PassThrough();
const io = { stdout: stream, stderr: stream, signal: new AbortController().signal };
const parse = (line: string) =>
  resolveConfig(
    parseArgs<Record<string, unknown>>(
      trainCommand(io),
      line.split(' ').filter((x) => x !== ''),
    ),
  );

describe('settings', () => {
  test("own data gets the paper's settings (3.5 and B.2)", () => {
    expect(parse('--data films')).toMatchObject({
      method: 'selora',
      rank: 1,
      targets: 'all-linear',
      scale: 1,
      gainA: 0,
      lambda: 1.1,
      testEvery: 40,
      budget: null,
      optimizer: 'adam',
      lr: 1e-4,
      weightDecay: 0,
      clip: 0,
      batch: 8,
      accumulate: 1,
      schedule: 'constant',
      lossWeight: 'plain',
      timesteps: 'uniform',
      captionDropout: 0,
      trainTextEncoder: true,
    });
  });
  test('no data means the built-in phantoms with their preset', () => {
    expect(parse('')).toMatchObject({ data: 'phantoms', ...runPresets.phantoms });
  });
  test('the command line wins over a preset, a preset over the defaults', () => {
    const c = parse('--data x --preset montgomery --lambda 1.3 --batch 6');
    expect(c).toMatchObject({ lambda: 1.3, batch: 6, epochs: 100, resolution: 224, split: '80/20', sampler: 'pndm' });
  });
  test('--steps takes the place of a preset in epochs, --epochs that of steps', () => {
    expect(parse('--data x --preset iu-xray --steps 50')).toMatchObject({ steps: 50, epochs: null });
    expect(parse('--data x --epochs 3')).toMatchObject({ epochs: 3 });
  });
  test.each(['', '--data x --preset patchgastric --no-train-text-encoder', '--data x --lr 1e-3 --budget 40'])(
    'a resolved config resolves to itself, so that a run resumes as it began: %s',
    (line) => {
      const c = parse(line);
      expect(resolveConfig(JSON.parse(JSON.stringify(c)))).toEqual(c);
    },
  );
  test.each([
    '',
    '--method lora --rank 4 --seed 7',
    '--data films --epochs 3 --no-train-text-encoder --checkpoint-blocks on --merged --final last',
    '--data films --preset montgomery --text-lr 2e-5 --sampler euler --compare a b --ranks **.attn2.**=4',
    '--data films --compat published-code --lambda 1 --schedule cosine --warmup 5 --loss-weight clip-snr --loss-low 0.2',
  ])('the command told at a resume gives the same settings: %s', (line) => {
    const c = parse(line);
    const [program, ...words] = commandOf(c).split(/ -- | (?!-- )/);
    expect([program, words[0]]).toEqual(['npm', 'run']);
    const given = words.slice(2).map((w) => w.replace(/^'(.*)'$/, '$1'));
    expect(parse(given.join(' '))).toEqual(c);
  });
  test('texts with blanks and quotes are quoted for a shell', () => {
    expect(commandOf(parse('--data films --targets **.to_q'))).toBe(
      "npm run train -- --data films --targets '**.to_q'",
    );
    expect(commandOf({ ...parse('--data x'), data: "Ann's films" })).toBe("npm run train -- --data 'Ann'\\''s films'");
  });
  test('every setting can be given on the command line, and nothing else', () => {
    const options = trainCommand(io).options.map((o) => o.attributeName());
    const own = ['out', 'name', 'resume', 'preset', 'estimate', 'memory'];
    expect(options.filter((o) => !own.includes(o)).sort()).toEqual(Object.keys(configSchema.shape).sort());
  });
  test('piecewise rates reach the schedule', () => {
    const c = parse('--data x --schedule piecewise_constant --lr-rules 1:10,0.1 --lr 2e-3 --steps 30');
    const rates = [0, 9, 10, 29].map((k) => ratesOf(c, k, 30).unet);
    expect(rates).toEqual([2e-3, 2e-3, 2e-4, 2e-4]);
  });
  test('the text encoder follows the schedule at its own rate, also beside a U-Net that stands still', () => {
    const c = parse('--data x --schedule linear --warmup 2 --lr 1e-3 --text-lr 4e-3');
    expect([0, 1, 2, 6].map((k) => ratesOf(c, k, 10))).toEqual([
      { unet: 0, text: 0 },
      { unet: 5e-4, text: 2e-3 },
      { unet: 1e-3, text: 4e-3 },
      { unet: 5e-4, text: 2e-3 },
    ]);
    expect(ratesOf(parse('--data x --lr 0 --text-lr 1e-4'), 3, 10)).toEqual({ unet: 0, text: 1e-4 });
    expect(ratesOf(parse('--data x --lr 2e-4'), 3, 10)).toEqual({ unet: 2e-4, text: 2e-4 });
  });
});

describe('mistakes', () => {
  test.each([
    ['--data x --batch 8 --accumulate 3', '--accumulate: must divide the batch of 8'],
    ['--data x --lambda -1', '--lambda: is -1, expected at least 0'],
    ['--data x --test-every 0', '--test-every: is 0, expected at least 1'],
    ['--data x --rank 1.5', '--rank: is 1.5, expected a whole number'],
    ['--data x --scale 0', '--scale: is 0, expected more than 0'],
    ['--data x --caption-dropout 1.5', '--caption-dropout: is 1.5, expected at most 1'],
    ['--data x --method dora', '--method: is "dora", expected selora, lora'],
    ['--data x --steps 1e400', '--steps: is Infinity, expected a number'],
    ['--data x --gamma 3', '--gamma: belongs to --loss-weight min-snr'],
    ['--data x --loss-weight min-snr --loss-high 3', '--loss-high: belongs to --loss-weight clip-snr'],
    ['--data x --split 0/50/50', 'the first above 0'],
    ['--data x --timesteps low', '--timesteps: '],
    ['--data x --sampler k_euler', '--sampler: '],
    ['--data x --split 80/30', '--split: '],
    ['--data x --budget 0', '--budget: '],
    ['--data x --lr NaN', "option '--lr <x>' argument 'NaN' is invalid. expected a number"],
    ['--data x --lr', "option '--lr <x>' argument missing"],
    ['--data x --lamda 1.2', "unknown option '--lamda' (Did you mean --lambda?)"],
    ['--preset mnist', "option '--preset <name>' argument 'mnist' is invalid. Allowed choices are phantoms, iu-xray"],
    ['--data x --loss-weight clip-snr --loss-low 9 --loss-high 2', '--loss-low: must not exceed high'],
    ['--data x --schedule piecewise_constant', '--lr-rules: expected factor:until'],
    ['--data x --schedule piecewise_constant --lr-rules 1:x', '--lr-rules: expected factor:until'],
    ['--data x --lr-rules 1:10,0.1', '--lr-rules: belongs to --schedule piecewise_constant'],
    ['--data x --fisher sample', '--fisher: '],
    ['--data x --fi-ema 1', '--fi-ema: '],
    ['--data x --criterion fi-snr --fisher batch', '--criterion: fi-snr needs the gradients of single samples'],
    ['--data x --criterion loss-decrease --batch 1', '--criterion: loss-decrease needs two samples or more'],
    ['--data x --compat published-code --fisher per-sample', '--fisher: --compat published-code squares the batch'],
    ['--data x --compat published-code --fi-batches 2', '--fi-batches: is 1 with --compat published-code'],
    ['--data x --compat published-code --method lora', '--method: is selora with --compat published-code'],
    ['--data x --final first', "option '--final <which>' argument 'first' is invalid. Allowed choices are best, last"],
    ['--data x --backend cuda', '--backend: '],
    ['--data x --threads 0', '--threads: '],
  ])('%s', (line, message) => {
    let text = '';
    try {
      parse(line);
    } catch (error) {
      text = errorLine(error);
    }
    expect(text).toContain(message);
    expect(text).not.toContain('\n');
  });
  test('a setting no version knows, from an old or foreign run folder', () => {
    expect(() => resolveConfig({ data: 'x', lamda: 1.2 })).toThrow(/lamda/);
  });
});
