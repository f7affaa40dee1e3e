/** Opens a CLIP model as transformers' `CLIPModel` keeps it: both towers, their projections, tokenizer, rule for pictures. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { Tokenizer } from '../clip/tokenizer.ts';
import { parseConfig, type TextEncoderConfig, textEncoderSchema } from '../config.ts';
import { FileError } from './error.ts';
import { type Json, readJson } from './json.ts';
import { openFiles } from './part.ts';
import { readTokenizer } from './tokenizer-files.ts';
import { type WeightSource, weightOf, weightSource } from './weights.ts';

const side = z.int().min(1).max(4096);

const visionSchema = z
  .object({
    hidden_size: z.int().min(1).max(65_536).default(768),
    intermediate_size: z.int().min(1).max(65_536).default(3072),
    num_hidden_layers: z.int().min(1).max(256).default(12),
    num_attention_heads: z.int().min(1).max(1024).default(12),
    num_channels: z.literal(3, { error: 'only 3 is supported' }).default(3),
    image_size: side.default(224),
    patch_size: side.default(32),
    hidden_act: z.enum(['quick_gelu', 'gelu'], { error: 'expected one of quick_gelu, gelu' }).default('quick_gelu'),
    layer_norm_eps: z.number().gt(0).lt(1).default(1e-5),
  })
  .check(({ value: c, issues }) => {
    const bad = (key: string, message: string) => issues.push({ code: 'custom', input: c, path: [key], message });
    if (c.hidden_size % c.num_attention_heads !== 0)
      bad('num_attention_heads', `${c.num_attention_heads} heads do not divide hidden_size ${c.hidden_size}`);
    if (c.image_size % c.patch_size !== 0)
      bad('patch_size', `${c.patch_size} does not divide image_size ${c.image_size}`);
  });

const record = z.record(z.string(), z.unknown());
/** transformers before 4.30 wrote the settings of a tower under a second name, which counts where it is there. */
const modelSchema = z.object({
  model_type: z.literal('clip', { error: 'only "clip" is supported' }),
  text_config: record.nullish(),
  text_config_dict: record.nullish(),
  vision_config: record.nullish(),
  vision_config_dict: record.nullish(),
  projection_dim: z.int().min(1).max(65_536).default(512),
});

const square = z.object({ height: side, width: side }).refine(({ height, width }) => height === width);
const three = z.array(z.number()).length(3);
const yes = z.literal(true, { error: 'only true is supported' }).nullish();
/** `preprocessor_config.json`, in the forms that CLIP's has had. */
const picturesSchema = z.object({
  do_resize: yes,
  do_center_crop: yes,
  do_normalize: yes,
  do_rescale: yes,
  resample: z.literal(3, { error: 'only 3 (bicubic) is supported' }).nullish(),
  size: z.union(
    [side, z.object({ shortest_edge: side }).transform((s) => s.shortest_edge), square.transform((s) => s.height)],
    { error: 'expected a number, { shortest_edge } or { height, width } of a square' },
  ),
  crop_size: z.union([side, square.transform((s) => s.height)], {
    error: 'expected a number or { height, width } of a square',
  }),
  rescale_factor: z
    .number()
    .nullish()
    .refine((x) => x === undefined || x === null || Math.abs(x * 255 - 1) < 1e-6, { error: 'only 1/255 is supported' }),
  image_mean: three,
  image_std: three.refine((all) => all.every((x) => x > 0), { error: 'must be above 0' }),
});

/** How pictures become numbers: shortest side to `side` (bicubic), the middle square, (x/255 − mean)/std. */
export type ClipPictures = {
  /** side of the square */
  readonly side: number;
  /** per channel, of values in 0 … 1 */
  readonly mean: readonly number[];
  /** per channel, of values in 0 … 1 */
  readonly std: readonly number[];
};

/** An opened CLIP model; weights are read when asked for. */
export type ClipFolder = {
  /** the text tower's sizes */
  readonly text: TextEncoderConfig;
  /** the tower for pictures */
  readonly vision: Readonly<z.output<typeof visionSchema>>;
  /** numbers of an embedding */
  readonly dims: number;
  /** texts → ids */
  readonly tokenizer: Tokenizer;
  /** pictures → numbers */
  readonly pictures: ClipPictures;
  /** of both towers and the projections, under CLIPModel's names */
  readonly weights: WeightSource;
  /** all files with weights */
  readonly files: readonly string[];
};

/** What CLIPModel has beside the towers and the projections: a temperature of its training, and 0, 1, 2 … */
const UNUSED = /^logit_scale$|\.position_ids$/;

/**
 * Opens a folder with `config.json`, weights as safetensors, the tokenizer's files and `preprocessor_config.json`.
 * @throws FileError naming file and field
 * @example const { dims } = await openClip('clip-vit-base-patch32') // 512
 */
export async function openClip(folder: string): Promise<ClipFolder> {
  const file = (name: string) => path.join(folder, name);
  const model = parseConfig(modelSchema, await readJson(file('config.json')), file('config.json'));
  const part = (name: 'text' | 'vision') => model[`${name}_config_dict`] ?? model[`${name}_config`] ?? {};
  const text = parseConfig(textEncoderSchema, part('text') as Json, `${file('config.json')}: text_config`);
  const vision = parseConfig(visionSchema, part('vision') as Json, `${file('config.json')}: vision_config`);
  const pictures = await readPictures(file, vision.image_size);
  const { tokenizer } = await readTokenizer(folder, text);
  const opened = await openFiles(folder, 'model');
  const weights = opened.files.flatMap((shard) =>
    [...shard.tensors.keys()].filter((name) => !UNUSED.test(name)).map((name) => weightOf(shard, name)),
  );
  const source = weightSource(opened.label, weights);
  return {
    text,
    vision,
    dims: model.projection_dim,
    tokenizer,
    pictures,
    weights: source,
    files: opened.files.map((shard) => shard.file),
  };
}

/** transformers 5 keeps the rule for pictures within `processor_config.json`. */
async function readPictures(file: (name: string) => string, expected: number): Promise<ClipPictures> {
  const [own, within] = [file('preprocessor_config.json'), file('processor_config.json')];
  const there = (name: string) => stat(name).then(Boolean, () => false);
  const nested = !(await there(own)) && (await there(within));
  const named = nested ? `${within}: image_processor` : own;
  const json = await readJson(nested ? within : own);
  const rule = nested ? (json as { readonly [key: string]: Json } | null)?.image_processor : json;
  const { size, crop_size, image_mean, image_std } = parseConfig(picturesSchema, rule ?? null, named);
  if (size !== crop_size || crop_size !== expected)
    throw new FileError(
      named,
      'crop_size',
      `pictures of ${size} cut to ${crop_size}, expected ${expected} for both, the tower's image_size`,
    );
  return { side: crop_size, mean: image_mean, std: image_std };
}
