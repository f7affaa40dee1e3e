/** FID and KID of runs in an experiment: from their picture files to its tables, against the reference's own features. */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { inceptionSpecUpTo } from '../../../models/inception/index.ts';
import { writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { specShapes } from '../../../models/spec.ts';
import { compare } from '../../../train/experiment/compare.ts';
import { parseExperiment, runsOf } from '../../../train/experiment/config.ts';
import { type ScoresSpec, scoreMeasures, scoresOf } from '../../../train/experiment/scores.ts';
import type { State } from '../../../train/experiment/state.ts';
import { experiment } from '../../../train/experiment.ts';
import { frechet, momentsOf } from '../../../train/metrics/measures/frechet.ts';
import { kernelDistance, kernelsOf } from '../../../train/metrics/measures/kernel.ts';
import { parseRecord } from '../../../train/run/record.ts';
import { type GoldenTensors, need, readGoldenTensors } from '../../../train/verify/golden.ts';
import { runCommand } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { weightByFormula } from '../../support/inception-weights.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const at = (name: string) => path.join(scratch, name);
const inception = at('inception.safetensors');
const text = (scores: string, settings = '{ steps: 2 }') => `
name: scored
settings: ${settings}
methods:
  - { name: LoRA, settings: { method: lora, rank: 4 } }
  - { name: grown, settings: { testEvery: 2 } }
seeds: [1]
${scores}
`;
/** pictures a run drew, and real ones */
const MANY = 6;
let tensors: GoldenTensors;
const features = (name: string): Float64Array[] => {
  const { data } = need(tensors, `features_${name}`);
  return Array.from({ length: MANY }, (_, i) => data.subarray(i * 64, (i + 1) * 64));
};

beforeAll(async () => {
  tensors = await readGoldenTensors(path.join(import.meta.dirname, '../../golden/metrics/evaluate.safetensors'));
  const shapes = [...specShapes(inceptionSpecUpTo(64))];
  await writeSafetensors(inception, new Map(shapes.map(([name, shape]) => [name, { dtype: 'F32', shape, data: weightByFormula(name, shape) }])), new Map(), {}); // biome-ignore format: one line
  for (const [folder, adapted] of [
    ['alike', 'real'],
    ['other', 'fake'],
  ] as const) {
    await mkdir(at(`${folder}/samples`), { recursive: true });
    await writeFile(at(`${folder}/config.json`), '{}');
    await writeFile(at(`${folder}/metrics.jsonl`), '');
    for (let i = 0; i < MANY; i++)
      for (const [label, name] of [
        ['real', 'real'],
        ['adapted', adapted],
      ] as const) {
        const { data, shape } = need(tensors, name);
        const [height, width] = shape.slice(2) as [number, number];
        const area = width * height;
        const rgb = Uint8Array.from(
          { length: 3 * area },
          (_, k) => data[(i * 3 + (k % 3)) * area + Math.floor(k / 3)]!,
        );
        await sharp(rgb, { raw: { width, height, channels: 3 } }).png().toFile(at(`${folder}/samples/0${i}-${label}.png`)); // biome-ignore format: one line
      }
  }
  await mkdir(at('films'), { recursive: true });
  for (let i = 0; i < MANY; i++) await copyFile(at(`alike/samples/0${i}-real.png`), at(`films/${i}.png`));
});

const e = parseExperiment(text('scores: { inception: x, dims: [64] }'));
const states: readonly State[] = runsOf(e, 'x').map((run, i) => ({
  run,
  state: 'done',
  record: parseRecord({ name: 'r', folder: at(['alike', 'other'][i]!) }),
}));
const how = { say: () => undefined, signal: new AbortController().signal };

describe('scores of runs', () => {
  test.each([
    ['their own real pictures', undefined],
    ['a folder of them', at('films')],
  ] as const)('beside %s are those of the reference’s features', async (_, real) => {
    const spec: ScoresSpec = { inception, dims: [64], ...(real ? { real } : {}) };
    const scores = await scoresOf(spec, states, at('out'), 'wasm', how);
    const measures = scoreMeasures(spec, scores);
    expect(measures.map((m) => m.id)).toEqual(['fid-64', 'kid', 'drawn']);
    const value = (id: string, arm: string) =>
      compare(e, states, measures)
        .find((r) => r.measure.id === id)!
        .cells.find((c) => c.arm === arm)!.summary!.mean;
    const want = frechet(momentsOf(features('real')), momentsOf(features('fake')));
    expect(Math.abs(value('fid-64', 'LoRA'))).toBeLessThan(1e-9);
    expect(want).toBeGreaterThan(1e-3);
    expect(Math.abs(value('fid-64', 'grown') - want)).toBeLessThan(1e-4 * want);
    const kid = kernelDistance(kernelsOf(features('real'), features('fake')));
    expect(Math.abs(value('kid', 'grown') - kid)).toBeLessThan(1e-3 * Math.abs(kid));
    expect(value('drawn', 'grown')).toBe(MANY);
  });
  test('an experiment without any asks for none, and a run that drew too few pictures has none', async () => {
    expect(scoreMeasures(undefined, new Map())).toEqual([]);
    const few: readonly State[] = [{ ...states[0]!, record: parseRecord({ name: 'r', folder: at('few') }) } as State];
    await mkdir(at('few/samples'), { recursive: true });
    await writeFile(at('few/config.json'), '{}');
    await writeFile(at('few/metrics.jsonl'), '');
    expect(await scoresOf({ inception, dims: [64] }, few, at('out'), 'wasm', how)).toEqual(new Map());
  });
});

describe('what is wrong with them is told before anything is trained', () => {
  const run = async (scores: string) => {
    await writeFile(at('scored.yaml'), text(scores, '{ steps: 2, backend: wasm, threads: 1 }'));
    const start = () => Promise.reject(new Error('started'));
    return runCommand((args, io) => experiment(args, io, start), ['--config', at('scored.yaml'), '--out', at('never')]);
  };
  test.each([
    ['neither network', 'scores: { dims: [64] }', 'scores: expected inception, clip, or both'],
    ['another number of features', 'scores: { inception: x, dims: [100] }', 'scores.dims.0: '],
    [
      'no such file',
      `scores: { inception: ${JSON.stringify(at('none.safetensors'))} }`,
      'none.safetensors: no such file',
    ],
    [
      'another network',
      `scores: { inception: ${JSON.stringify(inception)}, dims: [64, 2048] }`,
      'missing: Conv2d_3b_1x1.conv.weight',
    ],
    [
      'no real pictures',
      `scores: { inception: ${JSON.stringify(inception)}, dims: [64], real: ${JSON.stringify(at('few'))} }`,
      'few/samples: 0 pictures, expected 4 or more',
    ],
  ])('%s', async (_, scores, message) => {
    const r = await run(scores);
    expect([r.code, r.stderr]).toEqual([1, expect.stringContaining(message)]);
    expect(r.stderr.trim().split('\n')).toHaveLength(1);
  });
});
