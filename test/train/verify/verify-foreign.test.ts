/** `npm run verify` on directories of the same form made by others: other sizes, odd cases, damaged files. */
import { cp, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { execute, type Io } from '../../../train/cli/command.ts';
import { readGoldenTensors } from '../../../train/verify/golden.ts';
import { main } from '../../../train/verify.ts';
import { longRows } from '../../support/long.ts';

const OWN = join(import.meta.dirname, '../../golden');
let temporary: string;
beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'foreign-'));
});
afterAll(() => rm(temporary, { recursive: true }));

async function verify(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const io: Io = { stdout, stderr, signal: new AbortController().signal };
  const code = await execute(main, args, io);
  const all = (stream: PassThrough): string => (stream.read() as Buffer | null)?.toString() ?? '';
  return { code, out: all(stdout), err: all(stderr) };
}

/** A copy of some files of the repository's own set. */
async function copyOf(name: string, files: readonly string[]): Promise<string> {
  const directory = join(temporary, name);
  for (const file of files) await cp(join(OWN, file), join(directory, file), { recursive: true });
  return directory;
}
/** Changes a JSON file of a directory. */
async function edit(directory: string, file: string, change: (json: Record<string, never>) => void): Promise<void> {
  const json = JSON.parse(await readFile(join(directory, file), 'utf8'));
  change(json);
  await writeFile(join(directory, file), JSON.stringify(json));
}
/** Adds tensors to a safetensors file of a directory. */
async function addTensors(directory: string, file: string, more: Record<string, readonly number[]>): Promise<void> {
  const path = join(directory, file);
  const tensors = new Map<string, TensorOut>();
  for (const [name, { dtype, shape, data }] of await readGoldenTensors(path))
    tensors.set(name, { dtype: dtype === 'I64' ? 'F64' : (dtype as TensorOut['dtype']), shape, data });
  for (const [name, data] of Object.entries(more))
    tensors.set(name, { dtype: 'F64', shape: [data.length], data: Float64Array.from(data) });
  await writeSafetensors(path, tensors);
}

describe('models of other shapes', () => {
  test('a stored gradient that is zero but for rounding, and one of no parameter', async () => {
    const directory = await copyOf('zero', ['models.json', 'models.safetensors', 'tiny-sd']);
    const path = 'text_model.encoder.layers.0.self_attn.k_proj.bias';
    const width = JSON.parse(await readFile(join(directory, 'tiny-sd/text_encoder/config.json'), 'utf8')).hidden_size;
    const noise = Array.from({ length: width }, (_, i) => (i % 3) * 1e-17);
    await addTensors(directory, 'models.safetensors', { [`clip.grad.${path}`]: noise });
    for (const backend of longRows(['cpu', 'wasm'], (name) => name === 'wasm'))
      expect((await verify(directory, '--only', 'models', '--backend', backend, '--all')).out).toMatch(
        new RegExp(` ok .*clip\\.grad\\.${path} `),
      );
    await addTensors(directory, 'models.safetensors', { 'clip.grad.text_model.nothing': [1] });
    const { code, out } = await verify(directory, '--only', 'models', '--backend', 'wasm');
    expect(out).toContain('FAIL  golden tensor clip.grad.text_model.nothing: the model has no parameter');
    expect(code).toBe(1);
  }, 180_000);

  test('a set without a text encoder case', async () => {
    const directory = await copyOf('vae', ['models.json', 'models.safetensors', 'tiny-sd']);
    await edit(directory, 'models.json', (json) => {
      delete (json as Record<string, unknown>).clip;
      delete (json as Record<string, unknown>).unet;
    });
    const { code, out } = await verify(directory, '--backend', 'wasm');
    expect(out).toMatch(/^models .* ok /m);
    expect(code).toBe(0);
  }, 180_000);
});

describe('operations', () => {
  const files = ['ops.json', 'ops.safetensors'];
  test('an unknown operation is listed, a broken case fails alone', async () => {
    const directory = await copyOf('ops', files);
    await edit(directory, 'ops.json', (json) => {
      const cases = json.cases as { name: string; op: string; inputs: Record<string, number[]> }[];
      cases.unshift({ name: 'new', op: 'fold', inputs: { x: [1] } });
      cases.unshift({ name: 'lost', op: 'tanh', inputs: { x: [1] } });
    });
    const { code, out, err } = await verify(directory, '--backend', 'wasm');
    expect(out).toContain('FAIL  ops lost (golden tensor lost/in.x is missing)');
    expect(out).toContain('no check yet for: ops.json: new (operation fold)');
    expect(err).toMatch(/^1 of 222 comparisons failed\n$/);
    expect(code).toBe(1);
  });
});

/** One case after the other: operation, attributes, inputs, and what PyTorch gives. */
type Numbers = readonly [shape: readonly number[], data: readonly number[]];
type Row = readonly [op: string, attributes: object, inputs: Record<string, Numbers>, out: Numbers];
const COUNT: Numbers = [
  [2, 3],
  [0, 1, 2, 3, 4, 5],
];
const FORMS: readonly Row[] = [
  ['slice', { ranges: '[..., -1]' }, { x: COUNT }, [[2], [2, 5]]],
  [
    'slice',
    { ranges: '[1, None, 1:99]' },
    { x: COUNT },
    [
      [1, 2],
      [4, 5],
    ],
  ],
  [
    'pad',
    {
      low_high_per_axis: [
        [0, 0],
        [-1, 1],
      ],
      value: 7,
    },
    { x: COUNT },
    [
      [2, 3],
      [1, 2, 7, 4, 5, 7],
    ],
  ],
  [
    'transpose',
    { perm: [-1, 0] },
    { x: COUNT },
    [
      [3, 2],
      [0, 3, 1, 4, 2, 5],
    ],
  ],
  [
    'broadcast_to',
    { shape: [2, -1] },
    {
      x: [
        [1, 2],
        [8, 9],
      ],
    },
    [
      [2, 2],
      [8, 9, 8, 9],
    ],
  ],
  ['pow', { exponent: 3 }, { x: [[2], [-2, 0]] }, [[2], [-8, 0]]],
  ['clip', { min: 1 }, { x: [[3], [-4, 2, 9]] }, [[3], [1, 2, 9]]],
  ['var', { axes: [0, 1], correction: 1 }, { x: COUNT }, [[], [3.5]]],
  [
    'var',
    { axis: 1, correction: 0, keepdims: true },
    {
      x: [
        [1, 2],
        [1, 3],
      ],
    },
    [[1, 1], [1]],
  ],
  ['cat', { axis: 0 }, { b: [[1], [2]], a: [[1], [1]] }, [[2], [2, 1]]],
  ['gelu', { approximate: 'tanh' }, { x: [[1], [1]] }, [[1], [0.841191990608276]]],
  [
    'conv2d',
    { stride: [2, 1], padding: [0, 1], groups: 1 },
    {
      x: [
        [1, 1, 3, 2],
        [1, 2, 3, 4, 5, 6],
      ],
      weight: [
        [1, 1, 1, 3],
        [1, 10, 100],
      ],
    },
    [
      [1, 1, 2, 2],
      [210, 21, 650, 65],
    ],
  ],
  [
    'conv2d',
    { stride: 1, padding: 0, dilation: 2 },
    {
      x: [
        [1, 1, 1, 3],
        [1, 2, 3],
      ],
      weight: [
        [1, 1, 1, 2],
        [1, 10],
      ],
    },
    [[1, 1, 1, 1], [31]],
  ],
  [
    'pad+conv2d',
    { pad: 'F.pad(x,(1,0,0,0)): zeros', stride: 1, padding: 0 },
    {
      x: [
        [1, 1, 1, 2],
        [1, 2],
      ],
      weight: [
        [1, 1, 1, 2],
        [1, 10],
      ],
    },
    [
      [1, 1, 1, 2],
      [10, 21],
    ],
  ],
  [
    'group_norm',
    { groups: 1, eps: 1e-5 },
    {
      x: [
        [1, 1, 2],
        [3, 3],
      ],
      weight: [[1], [1]],
      bias: [[1], [5]],
    },
    [
      [1, 1, 2],
      [5, 5],
    ],
  ],
  ['mean', { axes: 'all' }, { x: [[4], [0.75, 1 / 3, -0.75, -0.3125]] }, [[], [(Math.fround(1 / 3) - 0.3125) / 4]]],
];
test('the forms PyTorch has for operations: positions, ellipses, lists, negative axes', async () => {
  const directory = join(temporary, 'forms');
  const tensors = new Map<string, TensorOut>();
  const cases = FORMS.map(([op, attributes, inputs, [shape, data]], i) => {
    tensors.set(`${i}/out`, { dtype: 'F64', shape, data: Float64Array.from(data) });
    tensors.set(`${i}/out_f32`, { dtype: 'F32', shape, data: Float32Array.from(data) });
    for (const [key, [size, values]] of Object.entries(inputs))
      tensors.set(`${i}/in.${key}`, { dtype: 'F32', shape: size, data: Float32Array.from(values) });
    const shapes = Object.fromEntries(Object.entries(inputs).map(([key, [size]]) => [key, size]));
    return { name: String(i), op, attributes, inputs: shapes };
  });
  await mkdir(directory);
  await writeSafetensors(join(directory, 'ops.safetensors'), tensors);
  await writeFile(join(directory, 'ops.json'), JSON.stringify({ cases }));
  for (const backend of ['cpu', 'wasm']) {
    const { code, out } = await verify(directory, '--backend', backend);
    expect(out).not.toContain('FAIL');
    expect(code).toBe(0);
  }
});

describe('damaged directories', () => {
  test('half a pair of files fails by name', async () => {
    const directory = await copyOf('half', ['ops.json', 'resize.json', 'resize.safetensors']);
    const { code, out } = await verify(directory, '--backend', 'wasm');
    expect(out).toContain('FAIL  ops.json cannot be checked without ops.safetensors');
    expect(out).toMatch(/^resize .* ok /m);
    expect(code).toBe(1);
  });
  test.each(['ops', 'schedulers', 'samplers', 'models', 'resize', 'weights'])(
    '%s.safetensors cut short',
    async (name) => {
      const model = name === 'models' ? ['tiny-sd'] : [];
      const directory = await copyOf(`cut-${name}`, [`${name}.json`, `${name}.safetensors`, ...model]);
      await truncate(join(directory, `${name}.safetensors`), 3000);
      const { code, out, err } = await verify(directory, '--backend', 'wasm');
      expect(out).toMatch(new RegExp(`FAIL .*${name}\\.safetensors`));
      expect(out + err).not.toMatch(/^ +at /m);
      expect(code).toBe(1);
    },
  );
  test.each(['{', '[]', '{"cases": [{}]}', '{"cases": []}'])('ops.json that holds %s', async (text) => {
    const directory = await copyOf('json', ['ops.json', 'ops.safetensors']);
    await writeFile(join(directory, 'ops.json'), text);
    const { code, out, err } = await verify(directory, '--backend', 'wasm');
    expect(out + err).toMatch(text.includes('[]}') ? /nothing was compared/ : /FAIL .*ops\.json/);
    expect(out + err).not.toMatch(/^ +at /m);
    expect(code).toBe(1);
  });
  test('entries and files without a check are listed', async () => {
    const directory = await copyOf('more', ['schedulers.json', 'schedulers.safetensors']);
    await edit(directory, 'schedulers.json', (json) => Object.assign(json, { generate: {}, loops: {} }));
    await writeFile(join(directory, 'unknown.safetensors'), '');
    const { out } = await verify(directory, '--backend', 'wasm');
    expect(out).toContain(
      'no check yet for: schedulers.json: generate (there is no tiny-sd), schedulers.json: loops, unknown.safetensors',
    );
  });
  test('a trajectory that cannot be replayed does not hide the others', async () => {
    const directory = await copyOf('trajectory', ['schedulers.json', 'schedulers.safetensors']);
    let count = 0;
    await edit(directory, 'schedulers.json', (json) => {
      const trajectories = json.trajectories as Record<string, object>;
      const [name] = Object.keys(trajectories);
      count = Object.keys(trajectories).length;
      Object.assign(json, { trajectories: { absent: trajectories[name!], ...trajectories } });
    });
    const { out } = await verify(directory, '--backend', 'wasm', '--all');
    expect(out).toContain('FAIL  absent (golden tensor traj.absent.samples is missing)');
    expect(out.match(/ ok .* f32 /g)).toHaveLength(count);
  });
});
