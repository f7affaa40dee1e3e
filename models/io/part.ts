/** Finds and opens the weight files of one network's folder: plain, `fp16` variant, or shards with an index. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { modernVaeName, type Part } from '../names.ts';
import { asFileError, FileError, listed, quoted } from './error.ts';
import { readJson } from './json.ts';
import { openSafetensors, type Safetensors } from './safetensors.ts';
import { conversionHint } from './safetensors-header.ts';
import { type Weight, type WeightSource, weightOf, weightSource } from './weights.ts';

export type OpenedPart = { readonly source: WeightSource; readonly files: readonly string[] };

/** A hostile index must not make us open files without end. */
const MAX_SHARDS = 1000;
const MAX_INDEX_BYTES = 32 << 20;

/** Names of weight files in the order of preference: full precision before the fp16 variant. */
function candidates(stem: string): readonly string[] {
  return [
    ...[`${stem}.safetensors`, `${stem}.safetensors.index.json`],
    ...[`${stem}.fp16.safetensors`, `${stem}.safetensors.index.fp16.json`, `${stem}.fp16.safetensors.index.json`],
    `${stem}.non_ema.safetensors`,
  ];
}

/**
 * Opens the weights of `part` in `folder`; headers only.
 * @throws FileError when there are none (with the way out where there are only pickles) or a file breaks a rule
 */
export async function openPart(folder: string, part: Part): Promise<OpenedPart> {
  const { label, files } = await openFiles(folder, part === 'text_encoder' ? 'model' : 'diffusion_pytorch_model');
  const weights = await Promise.all(files.map((shard) => weightsOf(shard, part)));
  return { source: weightSource(label, weights.flat()), files: files.map((shard) => shard.file) };
}

/**
 * The files `STEM.safetensors` of a folder, whole or in shards; headers only. `label` is the file, or the shards' index.
 * @throws FileError as `openPart`
 */
export async function openFiles(
  folder: string,
  stem: string,
): Promise<{ readonly label: string; readonly files: readonly Safetensors[] }> {
  const names = await readdir(folder).catch((error) => {
    throw asFileError(error, folder);
  });
  const wanted = candidates(stem);
  const name = wanted.find((candidate) => names.includes(candidate));
  if (name === undefined) {
    const pickle = names.find((n) => /\.(bin|ckpt|pt|pth|pkl|msgpack|h5)$/.test(n));
    const hint = pickle === undefined ? '' : `; there is only ${quoted(pickle)}: ${conversionHint(pickle)}`;
    throw new FileError(
      folder,
      '',
      `no weights: expected ${wanted[0]}, its .fp16 variant or shards with an index${hint}`,
    );
  }
  const label = path.join(folder, name);
  const files = name.endsWith('.json') ? await openShards(folder, label) : [await openSafetensors(label)];
  return { label, files };
}

/** All shards that an index names. Only plain file names are taken: an index cannot reach out of its folder. */
async function openShards(folder: string, index: string): Promise<readonly Safetensors[]> {
  const json = await readJson(index, MAX_INDEX_BYTES);
  const map = typeof json === 'object' && json !== null && 'weight_map' in json ? json.weight_map : undefined;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new FileError(index, 'weight_map', 'must be an object of tensor names and file names');
  }
  const shardOf = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !/^(?!\.)[^/\\\p{Cc}]{1,250}\.safetensors$/u.test(shard)) {
      const shown = quoted(typeof shard === 'string' ? shard : JSON.stringify(shard));
      throw new FileError(index, 'weight_map', `${shown} is not the name of a .safetensors file in this folder`);
    }
    shardOf.set(tensor, shard);
  }
  const files = [...new Set(shardOf.values())].sort();
  if (files.length > MAX_SHARDS)
    throw new FileError(index, 'weight_map', `names ${files.length} files, at most ${MAX_SHARDS}`);
  const opened: Safetensors[] = [];
  for (const name of files) opened.push(await openSafetensors(path.join(folder, name)));
  for (const [i, shard] of opened.entries()) {
    const extra = [...shard.tensors.keys()].filter((tensor) => shardOf.get(tensor) !== files[i]);
    if (extra.length > 0) throw new FileError(shard.file, 'tensors', `not in the index: ${listed(extra)}`);
  }
  const present = new Set(opened.flatMap((shard) => [...shard.tensors.keys()]));
  const lacking = [...shardOf.keys()].filter((tensor) => !present.has(tensor));
  if (lacking.length > 0)
    throw new FileError(index, 'weight_map', `names tensors that no shard holds: ${listed(lacking)}`);
  return opened;
}

/** The tensors of one file under today's names. */
async function weightsOf(file: Safetensors, part: Part): Promise<readonly Weight[]> {
  const weights: Weight[] = [];
  for (const [stored, { shape }] of file.tensors) {
    if (part === 'text_encoder') {
      const name = textEncoderName(stored);
      if (name !== undefined) weights.push(weightOf(file, stored, name));
      continue;
    }
    if (part !== 'vae') {
      weights.push(weightOf(file, stored));
      continue;
    }
    const name = modernVaeName(stored);
    // Where the old names are, the matrices are sometimes stored as the 1×1 convolutions they once were.
    weights.push(weightOf(file, stored, name, name === stored ? undefined : withoutKernel(shape)));
  }
  return weights;
}

/** [c, d, 1, 1] → [c, d]; other shapes unchanged. */
export function withoutKernel(shape: readonly number[]): readonly number[] {
  return shape.length === 4 && shape[2] === 1 && shape[3] === 1 ? shape.slice(0, 2) : shape;
}

/**
 * The text encoder's names as CLIPTextModel has had them up to transformers 5.5, or undefined for what the model does not
 * use: `position_ids`, which count 0, 1, 2 … whatever merged checkpoints have made of them, and the projection of a
 * CLIPTextModelWithProjection. transformers 5.6 dropped the level `text_model`.
 */
export function textEncoderName(stored: string): string | undefined {
  if (/^(text_model\.)?embeddings\.position_ids$/.test(stored) || /^text_projection(\.weight)?$/.test(stored))
    return undefined;
  return /^(embeddings|encoder|final_layer_norm)\./.test(stored) ? `text_model.${stored}` : stored;
}
