/** Base models that openBase must refuse: one line that names file and field. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { writeTinyBase } from '../../support/tiny-base.ts';
import { rewrite, shard, TEXT, UNET, VAE } from '../../support/tiny-base-files.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-base-'));
const good = path.join(scratch, 'good');
beforeAll(() => writeTinyBase(good));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A copy of the good model to be damaged. */
function copy(): string {
  const folder = path.join(mkdtempSync(path.join(scratch, 'copy-')), 'model');
  cpSync(good, folder, { recursive: true });
  return folder;
}

describe('openBase refuses', () => {
  const json = (folder: string, file: string, change: object) => {
    const target = path.join(folder, file);
    writeFileSync(target, JSON.stringify({ ...JSON.parse(readFileSync(target, 'utf8')), ...change }));
  };
  type Damage = (folder: string) => void | Promise<void>;
  const cases: readonly (readonly [string, Damage, RegExp])[] = [
    [
      'an empty folder',
      (f) => rmSync(f, { recursive: true }) ?? mkdirSync(f),
      /model: is not a model: no model_index.json, unet/,
    ],
    ['no folder', (f) => rmSync(f, { recursive: true }), /model: no such file/],
    ['no unet', (f) => rmSync(path.join(f, 'unet'), { recursive: true }), /unet\/config.json: no such file/],
    ['no weights', (f) => unlinkSync(path.join(f, TEXT)), /text_encoder: no weights: expected model.safetensors/],
    [
      'pickles only',
      (f) => renameSync(path.join(f, UNET), path.join(f, 'unet/diffusion_pytorch_model.bin')),
      /unet: no weights.*only "diffusion_pytorch_model.bin": pickled weights are never opened.*torch\.load/,
    ],
    [
      'a folder for a file',
      (f) => rmSync(path.join(f, UNET)) ?? mkdirSync(path.join(f, UNET)),
      /safetensors: is a directory/,
    ],
    ['no vocabulary', (f) => unlinkSync(path.join(f, 'tokenizer/vocab.json')), /vocab.json: no such file/],
    [
      'a merge of three',
      (f) => writeFileSync(path.join(f, 'tokenizer/merges.txt'), '#version\nt h\na b c\n'),
      /merges.txt: line 3/,
    ],
    [
      'a token twice',
      (f) => writeFileSync(path.join(f, 'tokenizer/vocab.json'), '{"a":1,"a":2}'),
      /vocab.json: a: duplicate key "a"/,
    ],
    [
      'ids beyond the table',
      (f) => json(f, 'text_encoder/config.json', { vocab_size: 50 }),
      /vocab.json: ids go up to 55/,
    ],
    [
      'long encodings',
      (f) => json(f, 'text_encoder/config.json', { max_position_embeddings: 70 }),
      /model_max_length: is 77, above/,
    ],
    [
      'another pipeline',
      (f) => json(f, 'model_index.json', { _class_name: 'StableDiffusionXLPipeline' }),
      /model_index.json: _class_name/,
    ],
    [
      'a scheduler of flow-matching models',
      (f) => json(f, 'scheduler/scheduler_config.json', { _class_name: 'FlowMatchEulerDiscreteScheduler' }),
      /scheduler_config.json: _class_name: FlowMatchEulerDiscreteScheduler is for flow-matching models .*not supported/,
    ],
    [
      'other latents',
      (f) => json(f, 'vae/config.json', { latent_channels: 8 }),
      /in_channels: is 4, but the VAE's latent_channels is 8/,
    ],
    [
      'another context',
      (f) => json(f, 'unet/config.json', { cross_attention_dim: 16 }),
      /cross_attention_dim: is 16, but .*hidden_size is 8/,
    ],
    [
      'a name in two forms',
      (f) =>
        rewrite(path.join(f, VAE), (name, tensor) => [
          [name, tensor],
          ...(name.includes('encoder.mid_block.attentions.0.to_q.')
            ? [[name.replace('to_q', 'query'), tensor] as const]
            : []),
        ]),
      /is there twice, under two names/,
    ],
    [
      'a shard outside the folder',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          map['conv_in.weight'] = '../vae/diffusion_pytorch_model.safetensors';
        }),
      /index.json: weight_map: ".*" is not the name of a .safetensors file in this folder/,
    ],
    [
      'a shard that is missing',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          map['conv_in.weight'] = 'other.safetensors';
        }),
      /other.safetensors: no such file/,
    ],
    [
      'an index that lacks a tensor',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          delete map['conv_in.weight'];
        }),
      /tensors: not in the index: conv_in.weight/,
    ],
    [
      'an index with a tensor too many',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          map.extra = map['conv_in.weight'];
        }),
      /names tensors that no shard holds: extra/,
    ],
  ];
  it.each(cases)('%s', async (_what, damage, message) => {
    const folder = copy();
    await damage(folder);
    await expect(openBase(folder)).rejects.toThrow(message);
    await expect(openBase(folder)).rejects.toThrow(/^.*$/);
  });

  it.each([
    '../x.safetensors',
    '/etc/x.safetensors',
    'a/b.safetensors',
    '..\\x.safetensors',
    'x\u0000.safetensors',
    '.x.safetensors',
    'x.bin',
    '',
    'file:x.safetensors/',
    'x.safetensors/',
    `${'a'.repeat(300)}.safetensors`,
  ])('a shard called %j', async (name) => {
    const folder = copy();
    unlinkSync(path.join(folder, UNET));
    await shard(folder, (map) => {
      map['conv_in.weight'] = name;
    });
    await expect(openBase(folder)).rejects.toThrow(/weight_map/);
  });
});
