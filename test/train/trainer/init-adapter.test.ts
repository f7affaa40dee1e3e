/** `--init-adapter`: a run begins where a file is, convolutions and unequal ranks included, and goes on growing. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { type AdapterFile, type AdapterModule, readAdapter } from '../../../models/io/adapter-file.ts';
import { writeAdapter } from '../../../models/io/adapter-write.ts';
import { openBase } from '../../../models/io/base.ts';
import { inputsOf } from '../../../selora/methods/low-rank.ts';
import type { Place } from '../../../selora/methods/method.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import { main as generate } from '../../../train/generate.ts';
import { placesOf } from '../../../train/model/model.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { folder, rows, scratch } from '../../support/data-fixtures.ts';
import { longTest } from '../../support/long.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const base = join(scratch, 'base');
const at = (name: string) => join(scratch, name);
let data: string;
let file: AdapterFile;

const LINEAR = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q';
const KERNEL = 'unet.conv_in';
const DEAD = 'text_encoder.text_model.encoder.layers.0.mlp.fc1';
/** those of the file and few others */
const FEW = '**.attn1.to_q,**.conv_in,text.**.fc1';

/** Waves of rank r on a place; `dead` ranks are zero on both sides. */
function moduleOn(place: Place, rank: number, dead: readonly number[] = []): AdapterModule {
  const [dIn, dOut] = [inputsOf(place), place[0]];
  const wave = (n: number, f: number, alive: (i: number) => boolean) =>
    Float32Array.from({ length: n }, (_, i) => (alive(i) ? 0.05 * Math.sin(f + 2.7 * i) : 0));
  return {
    A: wave(dIn * rank, 1, (i) => !dead.includes(i % rank)),
    B: wave(rank * dOut, 2, (i) => !dead.includes(Math.floor(i / dOut))),
    rank,
    dIn,
    dOut,
    scale: 1,
    ...(place.length === 4 ? { kernel: [place[2]!, place[3]!] as const } : {}),
  };
}

beforeAll(async () => {
  await writeCalmBase(base);
  const places = placesOf(await openBase(base));
  const place = (name: string) =>
    (name.startsWith('unet.') ? places.unet : places.text).get(name.slice(name.indexOf('.') + 1))!;
  file = {
    metadata: new Map(),
    modules: new Map([
      [DEAD, moduleOn(place(DEAD), 3, [1])],
      [KERNEL, moduleOn(place(KERNEL), 2)],
      [LINEAR, moduleOn(place(LINEAR), 4)],
    ]),
  };
  // as kohya's scripts write it: the usual file has convolutions
  await writeAdapter(at('first.safetensors'), file, 'kohya');
  const films: Record<string, string | Uint8Array> = {
    'metadata.csv': rows(...Array.from({ length: 10 }, (_, i) => `${i}.png,the ${'abcdefghij'[i]} lung`)),
  };
  for (let i = 0; i < 10; i++)
    films[`${i}.png`] = await encodePng(
      Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + Math.floor(k / 3) * (0.05 + 0.02 * i))),
      16,
    );
  data = folder(films);
});

const common = (out: string) => [
  ...['--data', data, '--base', base, '--out', at(out)],
  ...'--batch 2 --samples 1 --sample-steps 2 --seed 5 --backend wasm --threads 1 --split 60/20/20'.split(' '),
];
const start = (out: string, ...more: readonly string[]) =>
  runCommand(train, [...common(out), '--init-adapter', at('first.safetensors'), ...more]);
const adapterOf = (out: string) => readAdapter(join(at(out), 'adapter.safetensors'));

describe('a run that begins from a file', () => {
  longTest('at a rate of 0 it ends with the file, to the bit, and draws what generate draws with it', async () => {
    const { code, stderr, stdout } = await start('still', '--targets', 'all', '--lr', '0', '--steps', '1');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /begins from \S+first\.safetensors: 2 modules of the U-Net, 1 of the text encoder, ranks 2 to 4; 1 rank that was zero on both sides gets a new column\n/,
    );
    const { modules } = await adapterOf('still');
    for (const [name, module] of file.modules) {
      const found = modules.get(name)!;
      expect([found.rank, found.kernel], name).toEqual([module.rank, module.kernel]);
      expect(found.B, name).toEqual(module.B);
      if (name !== DEAD) expect(found.A, name).toEqual(module.A);
    }
    for (const [name, { B }] of modules)
      if (!file.modules.has(name))
        expect(
          B.every((x) => x === 0),
          name,
        ).toBe(true);
    const told = JSON.parse(readFileSync(join(at('still'), 'samples/samples.json'), 'utf8'))[0];
    const sample = told.pictures.find((p: { label: string }) => p.label === 'adapted');
    const drawn = await runCommand(generate, [
      ...['--base', base, '--adapter', at('first.safetensors'), '--backend', 'wasm', '--steps', '2'],
      ...['--prompt', told.report, '--seed', String(sample.seed), '--out', at('drawn')],
    ]);
    expect(drawn.stderr).toBe('');
    const [png] = drawn.stdout.match(/\S+\.png/)!;
    expect(readFileSync(png)).toEqual(readFileSync(join(at('still'), sample.file)));
  });

  longTest('the untouched base that its report compares with is the base, not the file', async () => {
    const base = /untouched base on the validation grid: (\S+) \(reports exchanged: (\S+)\)/;
    const settings = ['--targets', FEW, '--lr', '0', '--steps', '1'];
    const [with_, without] = [
      await start('from-file', ...settings),
      await runCommand(train, [...common('from-nothing'), ...settings]),
    ];
    expect(base.exec(with_.stdout)!.slice(1)).toEqual(base.exec(without.stdout)!.slice(1));
    const began = /with \S+first\.safetensors: (\S+)\n/.exec(with_.stdout)![1];
    expect(began).not.toBe(base.exec(without.stdout)![1]);
  });

  test('it grows from the ranks of the file, and a rank that was dead learns', async () => {
    const tests = `--targets ${FEW} --lr 1e-2 --steps 3 --test-every 2 --lambda 1`.split(' ');
    const { code, stderr } = await start('grown', ...tests, '--final', 'last');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const { modules } = await adapterOf('grown');
    for (const [name, { rank }] of file.modules) expect(modules.get(name)!.rank, name).toBeGreaterThanOrEqual(rank);
    expect([...file.modules].some(([name, { rank }]) => modules.get(name)!.rank > rank)).toBe(true);
    const { A, B, rank, dIn, dOut } = modules.get(DEAD)!;
    expect(Array.from({ length: dIn }, (_, i) => A[i * rank + 1]).some((x) => x !== 0)).toBe(true);
    expect(B.subarray(dOut, 2 * dOut).some((x) => x !== 0)).toBe(true);
  });
});

describe('refusals in one line, with no folder left', () => {
  test.each([
    [
      ['--targets', 'all-linear'],
      /first\.safetensors: modules: --targets all-linear leaves out unet\.conv_in; all takes/,
    ],
    [['--targets', 'all', '--budget', '5'], /^--budget 5: the adapters begin with a total rank of \d+, expected more/],
  ])('%j', async (more, message) => {
    const { code, stderr } = await start('refused', '--steps', '1', ...more);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain('\n');
  });
  test('a file that is no adapter', async () => {
    writeFileSync(at('none.safetensors'), 'x');
    const { code, stderr } = await start('refused', '--steps', '1', '--init-adapter', at('none.safetensors'));
    expect([code, stderr.trimEnd().split('\n').length]).toEqual([1, 1]);
    expect(stderr).toContain('none.safetensors');
  });
});
