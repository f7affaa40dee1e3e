/** A run's settings: the paper's defaults, presets under the command line, one line for every mistake. */
import { PassThrough } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { errorLine, parseArgs } from '../../../train/cli/command.ts';
import { commandOf, trainCommand } from '../../../train/cli/flags.ts';
import { settingsPage } from '../../../train/cli/settings-page.ts';
import { configSchema } from '../../../train/config/config.ts';
import { startSchema } from '../../../train/config/invocation.ts';
import { runPresets } from '../../../train/config/presets.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { CHANGEABLE, resumedConfig } from '../../../train/config/resume.ts';
import { setting, settings } from '../../../train/config/setting.ts';
import { ratesOf } from '../../../train/optimise/rates.ts';

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
  test('of the built-in phantoms ranks are given by gain, until something is said about ranks', () => {
    const gain = { method: 'selora', criterion: 'gain', rank: 0, targets: 'all' };
    for (const line of ['', '--seed 3 --steps 100', '--preset phantoms', '--budget-parameters 31344'])
      expect(parse(line)).toMatchObject(gain);
    expect(parse('--targets all-linear')).toMatchObject({ ...gain, targets: 'all-linear' });
    for (const line of [
      '--method selora',
      '--rank 2',
      '--lambda 1.1',
      '--budget 400',
      '--data films',
      '--data x --preset montgomery',
    ])
      expect(parse(line)).toMatchObject({ method: 'selora', criterion: 'fi-ratio', targets: 'all-linear' });
    expect(parse('--method lora')).toMatchObject({ method: 'lora', criterion: 'fi-ratio', targets: 'all-linear' });
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
    const own = ['dataParallel', 'out', 'name', 'resume', 'preset', 'estimate', 'memory', 'watch'];
    expect(Object.keys(startSchema.shape).sort()).toEqual([...own].sort());
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

describe('one field, one setting', () => {
  test('a field without words does not type-check', () => {
    const help = { group: 'Data', help: 'pairs per update' } as const;
    const field = setting(z.int().default(8), help);
    // @ts-expect-error a bare zod field has no words
    const bare = () => settings({ batch: z.int().default(8) });
    // @ts-expect-error words without help
    const silent = () => setting(z.int(), { group: 'Data' });
    // @ts-expect-error a heading that --help does not have
    const lost = () => setting(z.int(), { group: 'Elsewhere', help: 'x' });
    expect([bare, silent, lost].every((f) => typeof f === 'function')).toBe(true);
    expect(settings({ batch: field }).parse({})).toEqual({ batch: 8 });
  });
  test('what may change at a resume is what its field says', () => {
    // as README and the reports of earlier versions told
    const before =
      'steps epochs final public saveEvery samples sampleEvery obedience sampler sampleSteps guidance compare merged threads data base baseConfig checkFinite';
    expect([...CHANGEABLE].sort()).toEqual(before.split(' ').sort());
    expect(resumedConfig(parse('--data x --seed 3'), { resume: 'r', guidance: 5 })).toEqual({
      ...parse('--data x --seed 3'),
      guidance: 5,
    });
  });
  test('--help tells every option with its default, its choices, the headings and the presets', () => {
    const help = trainCommand(io).helpInformation().replace(/\s+/g, ' ');
    for (const text of [
      'Growth of ranks: --lambda <x> a module grows where FI_expanded/FI_original is above this (default: 1.1)',
      '--final <which> adapter, pictures and report: of the best validated step or the last (best, last; default: best)',
      '--weights <dtype> frozen weights in memory; auto: f16 above 200 million parameters; nf4: 4 bits with doubly quantised scales (QLoRA), rounded (auto, f16, f32, nf4; default: auto)',
      '--checkpoint-blocks [when]',
      '--compare <dir...>',
      '--no-train-text-encoder adapt the U-Net only',
      '(phantoms, iu-xray, montgomery, patchgastric)',
    ])
      expect(help).toContain(text);
    let after = '';
    trainCommand({
      ...io,
      stdout: {
        write: (text: string) => {
          after += text;
          return true;
        },
      } as never,
    }).outputHelp();
    expect(after).toMatch(/Presets, .*\n {2}phantoms +--steps 2000 --lr 0\.012 /);
    expect(after).toMatch(/\n {2}montgomery +.*--split 80\/20 --epochs 100\n/);
  });
  test('SETTINGS.md is what the fields say', async () => {
    await expect(settingsPage()).toMatchFileSnapshot('../../../train/config/SETTINGS.md');
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
    ['--data x --method lo-ra', '--method: is "lo-ra", expected selora, lora'],
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
    ['--preset mnist', '--preset: is "mnist", expected phantoms, iu-xray, montgomery, patchgastric'],
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
    ['--data x --final first', '--final: is "first", expected best, last'],
    ['--data x --weights f64', '--weights: is "f64", expected auto, f16, f32, nf4'],
    ['--data x --checkpoint-blocks maybe', '--checkpoint-blocks: is "maybe", expected auto, on, off'],
    ['--data x --accumulate no', "option '--accumulate <n>' argument 'no' is invalid. expected a number"],
    ['--data x --noise-offset-adaptive 0.1', '--noise-offset-adaptive: belongs to --noise-offset'],
    ['--data x --memory 0', '--memory: is 0, expected more than 0'],
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
