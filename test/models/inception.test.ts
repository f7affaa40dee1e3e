/** Inception against torch-fidelity: weights by a formula, pictures through resizing and graph to every tap. */
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { type Backend, compile, mean, openBackend, read, type Tensor, tensor } from '../../core/index.ts';
import { inception, inceptionPixels, inceptionSpec, SIDE, TAPS, type TapSize } from '../../models/inception/index.ts';
import { parameterCount, specShapes } from '../../models/spec.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../train/verify/golden.ts';
import { inceptionByFormula, weightByFormula } from '../support/inception-weights.ts';
import { longTest } from '../support/long.ts';

const folder = path.join(import.meta.dirname, '../golden/metrics');
const schema = z.object({ shapes: z.record(z.string(), z.array(z.number())), test_values: z.record(z.string(), z.array(z.number())) }); // biome-ignore format: one line
let json: z.output<typeof schema>;
let tensors: GoldenTensors;
let backend: Backend;
beforeAll(async () => {
  json = await readGoldenJson(folder, 'inception.json', schema);
  tensors = await readGoldenTensors(path.join(folder, 'inception.safetensors'));
  backend = await openBackend('wasm');
});
/** NCHW bytes as pictures */
const pictures = (name: string) => {
  const { data, shape } = need(tensors, name);
  const [n, , height, width] = shape as [number, number, number, number];
  const area = height * width;
  return Array.from({ length: n }, (_, i) => ({
    width,
    height,
    data: Float64Array.from({ length: 3 * area }, (_, k) => data[(i * 3 + (k % 3)) * area + Math.floor(k / 3)]!),
  }));
};
const close = (got: ArrayLike<number>, want: ArrayLike<number>, by: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  const size = Math.max(...Array.from(want).map(Math.abs));
  for (let i = 0; i < want.length; i++) expect(Math.abs(got[i]! - want[i]!) / size, `${what} [${i}]`).toBeLessThanOrEqual(by); // biome-ignore format: one line
};
let parameters: ReturnType<typeof inceptionByFormula> | undefined;
async function features(of: ReturnType<typeof pictures>, size: TapSize): Promise<number[]> {
  parameters ??= inceptionByFormula();
  const x = tensor(Float32Array.from(of.flatMap((p) => Array.from(inceptionPixels(p)))), [of.length, SIDE, SIDE, 3]);
  const f = compile((p: ReturnType<typeof inceptionByFormula>, y: Tensor) => inception(p, y, size), { backend });
  return Array.from(await read(f(parameters, x)));
}

describe('Inception', () => {
  test('has the names and shapes of the published file', () => {
    expect(Object.fromEntries(specShapes(inceptionSpec()))).toEqual(json.shapes);
    expect(parameterCount(inceptionSpec())).toBe(23_850_960 + 2 * 17_216);
  });
  test('the formula of the weights is the reference’s', () => {
    for (const [name, want] of Object.entries(json.test_values)) {
      const all = weightByFormula(name, json.shapes[name]!);
      close([all[0]!, all[1]!, all[2]!, all.at(-1)!], want, 1e-7, name);
    }
  });
  test('pictures are resized as TensorFlow 1 did: every 23rd row and column', () => {
    const want = need(tensors, 'inception.a.resized_f32_sample').data;
    const got: number[] = [];
    for (const p of pictures('inception.a.images')) {
      const pixels = inceptionPixels(p);
      for (let c = 0; c < 3; c++) for (let y = 0; y < SIDE; y += 23) for (let x = 0; x < SIDE; x += 23) got.push(pixels[(y * SIDE + x) * 3 + c]! * 128 + 128); // biome-ignore format: one line
    }
    // both in float32, of values up to 255
    close(got, want, 3e-7, 'resized');
  });
  longTest('every tap of one picture: one run of the whole network', async () => {
    const [first] = pictures('inception.a.images');
    const places: Readonly<Record<string, TapSize>> = { MaxPool_1: 64, MaxPool_2: 192, Mixed_6e: 768 };
    const x = tensor(inceptionPixels(first!), [1, SIDE, SIDE, 3]);
    const f = compile(
      (p: ReturnType<typeof inceptionByFormula>, y: Tensor) => {
        const out: Record<string, Tensor> = {};
        out[2048] = inception(p, y, 2048, (name, value) => {
          const size = places[name];
          if (size !== undefined) out[size] = mean(value, [1, 2]);
        });
        return out;
      },
      { backend },
    );
    parameters ??= inceptionByFormula();
    const got = f(parameters, x);
    for (const size of TAPS)
      close(await read(got[size]!), need(tensors, `inception.a.${size}`).data.subarray(0, size), 3e-6, `tap ${size}`);
  });
  longTest('what lies behind the tap is not there: features of three pictures at the first', async () => {
    const got = await features(pictures('inception.a.images'), 64);
    close(got, need(tensors, 'inception.a.64').data, 3e-6, 'tap 64');
  });
});
