/** CLIP's two towers with projections against transformers: tiny weights, embeddings, cosines. */
import path from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { type Tensor, tensor, unflatten } from '../../core/index.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { projectionSpec, visionEncoder, visionEncoderSpec } from '../../models/clip/vision.ts';
import { parseConfig, textEncoderSchema } from '../../models/config.ts';
import { specEntries, specShapes } from '../../models/spec.ts';
import { linear, toModelLayout } from '../../nn/index.ts';
import { cosine } from '../../train/metrics/measures/clip-score.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../train/verify/golden.ts';
import { numbers } from '../support/gradcheck.ts';

const folder = path.join(import.meta.dirname, '../golden/metrics');
const size = z.record(z.string(), z.union([z.number(), z.string()]));
const schema = z.object({ text: size, vision: size, projection_dim: z.number(), shapes32: z.record(z.string(), z.array(z.number())) }); // biome-ignore format: one line
let json: z.output<typeof schema>;
let tensors: GoldenTensors;
beforeAll(async () => {
  json = await readGoldenJson(folder, 'clip.json', schema);
  tensors = await readGoldenTensors(path.join(folder, 'clip.safetensors'));
});
/** parameters of a specification from the reference's weights, in f64 */
const parametersOf = <S>(spec: S, prefix = ''): never =>
  unflatten<unknown>(
    spec as never,
    specEntries(spec as never).map(([name, { shape }]) => {
      const stored = need(tensors, `clip.weights.${prefix}${name}`);
      expect(stored.shape, name).toEqual(shape);
      const placed = toModelLayout({ data: stored.data as Float64Array, shape });
      return tensor(Array.from(placed.data), placed.shape, 'f64');
    }),
  ) as never;
const close = (got: readonly number[], name: string) => {
  const want = need(tensors, name).data;
  expect(got.length, name).toBe(want.length);
  for (const [i, x] of got.entries()) expect(Math.abs(x - want[i]!), `${name} [${i}]`).toBeLessThanOrEqual(1e-11 * (1 + Math.abs(want[i]!))); // biome-ignore format: one line
};

test('pictures, texts, projections and cosines are those of transformers, in f64', async () => {
  const vision = { ...json.vision, layer_norm_eps: 1e-5 } as never;
  const { data, shape } = need(tensors, 'clip.pixel_values');
  const [n, , h, w] = shape as [number, number, number, number];
  const pixels = Array.from({ length: data.length }, (_, k) => {
    const [c, at] = [k % 3, Math.floor(k / 3)];
    return data[(Math.floor(at / (h * w)) * 3 + c) * h * w + (at % (h * w))]!;
  });
  const seen = visionEncoder(parametersOf(visionEncoderSpec(vision)), vision, tensor(pixels, [n, h, w, 3], 'f64'));
  close(await numbers(seen.lastHiddenState), 'clip.vision.last_hidden_state');
  close(await numbers(seen.poolerOutput), 'clip.vision.pooler_output');
  const config = parseConfig(textEncoderSchema, json.text, 'text');
  const ids = need(tensors, 'clip.input_ids');
  const read = textEncoder(parametersOf(textEncoderSpec(config)), config, tensor(Int32Array.from(ids.data), ids.shape));
  const project = (name: string, x: Tensor) =>
    linear(parametersOf(projectionSpec(x.shape[1]!, json.projection_dim), `${name}.`), x);
  const images = await numbers(project('visual_projection', seen.poolerOutput));
  const texts = await numbers(project('text_projection', read.poolerOutput));
  close(images, 'clip.image_embeds');
  close(texts, 'clip.text_embeds');
  const row = (all: readonly number[], i: number) => all.slice(i * json.projection_dim, (i + 1) * json.projection_dim);
  const cosines = Array.from({ length: n * n }, (_, k) => cosine(row(images, Math.floor(k / n)), row(texts, k % n)));
  close(cosines, 'clip.cosine');
});

test('ViT-B/32 has the names and shapes of its published file', () => {
  const sizes = { hidden_size: 768, intermediate_size: 3072, num_hidden_layers: 12, num_attention_heads: 12, hidden_act: 'quick_gelu', layer_norm_eps: 1e-5, image_size: 224, patch_size: 32 } as const; // biome-ignore format: one line
  expect(Object.fromEntries(specShapes(visionEncoderSpec(sizes)))).toEqual(json.shapes32);
});
