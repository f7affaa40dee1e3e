/** A tiny model in the diffusers layout (SD 1.5's block types and names, widths 4 and 8), written by the program itself. */

import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, unetSchema, vaeSchema } from '../../models/config.ts';
import { type BaseOut, writeBase } from '../../models/io/base-write.ts';
import type { TensorOut } from '../../models/io/safetensors-write.ts';
import type { Spec } from '../../models/io/weights.ts';
import type { Part } from '../../models/names.ts';
import { SD15_SCHEDULER, SD15_TEXT_ENCODER, SD15_TOKENIZER, SD15_UNET, SD15_VAE } from '../../models/sd15.ts';
import { specShapes } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { vaeSpec } from '../../models/vae/index.ts';

const letters = [...'abcdefghijklmnopqrstuvwxyz'];
const vocabulary = [
  ...letters,
  ...letters.map((c) => `${c}</w>`),
  ...['th', 'the</w>', '<|startoftext|>', '<|endoftext|>'],
];

export const TINY_CONFIGS = {
  unet: {
    ...SD15_UNET,
    attention_head_dim: 2,
    block_out_channels: [4, 8],
    cross_attention_dim: 8,
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    layers_per_block: 1,
    norm_num_groups: 2,
    sample_size: 8,
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  },
  vae: {
    ...SD15_VAE,
    block_out_channels: [4, 8],
    down_block_types: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
    layers_per_block: 1,
    norm_num_groups: 2,
    sample_size: 16,
    up_block_types: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
  },
  textEncoder: {
    ...SD15_TEXT_ENCODER,
    hidden_size: 8,
    intermediate_size: 16,
    num_attention_heads: 2,
    num_hidden_layers: 1,
    projection_dim: 8,
    vocab_size: vocabulary.length,
  },
  scheduler: SD15_SCHEDULER,
} as const;

/** Names and shapes of every part, as the model code builds them. */
export const TINY_SPECS: Readonly<Record<Part, Spec>> = {
  unet: specShapes(unetSpec(parseConfig(unetSchema, TINY_CONFIGS.unet, 'unet'))),
  vae: specShapes(vaeSpec(parseConfig(vaeSchema, TINY_CONFIGS.vae, 'vae'))),
  text_encoder: specShapes(textEncoderSpec(parseConfig(textEncoderSchema, TINY_CONFIGS.textEncoder, 'text_encoder'))),
};

/** A value that tells part, tensor and place apart, exact as a half float. */
export const valueAt = (tensor: number, place: number) => ((tensor * 61 + place * 17) % 2048) / 1024 - 1;

export const sizeOf = (shape: readonly number[]) => shape.reduce((product, side) => product * side, 1);

export function tinyWeights(part: Part, dtype: 'F32' | 'F16' = 'F32'): ReadonlyMap<string, TensorOut> {
  return new Map(
    [...TINY_SPECS[part]].map(([name, shape], t): [string, TensorOut] => [
      name,
      { dtype, shape, data: Float32Array.from({ length: sizeOf(shape) }, (_, i) => valueAt(t, i)) },
    ]),
  );
}

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

export const TINY_TOKENIZER: ReadonlyMap<string, Uint8Array> = new Map([
  ['vocab.json', json(Object.fromEntries(vocabulary.map((token, id) => [token, id])))],
  ['merges.txt', new TextEncoder().encode('#version: 0.2\nt h\nth e</w>\n')],
  ['tokenizer_config.json', json(SD15_TOKENIZER)],
]);

/** Writes the model; `change` may replace any of its pieces. */
export async function writeTinyBase(folder: string, change: Partial<BaseOut> = {}): Promise<void> {
  await writeBase(folder, {
    configFiles: TINY_CONFIGS,
    tokenizerFiles: TINY_TOKENIZER,
    weights: { unet: tinyWeights('unet'), vae: tinyWeights('vae'), text_encoder: tinyWeights('text_encoder') },
    ...change,
  });
}
