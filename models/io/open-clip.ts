/**
 * OpenCLIP's names of a text tower, as single files of Stable Diffusion 2.x hold it: one matrix for queries, keys and
 * values together, and one layer more than is used.
 * Source: github.com/mlfoundations/open_clip, `TextTransformer`.
 */
import type { Safetensors } from './safetensors.ts';
import { type Weight, weightOf } from './weights.ts';

export const OPEN_CLIP_PREFIX = 'cond_stage_model.model.';

const WHOLE: ReadonlyMap<string, string> = new Map([
  ['token_embedding.weight', 'embeddings.token_embedding.weight'],
  ['positional_embedding', 'embeddings.position_embedding.weight'],
  ['ln_final.weight', 'final_layer_norm.weight'],
  ['ln_final.bias', 'final_layer_norm.bias'],
]);

/** What a text encoder of hidden states has no use for. */
const UNUSED = ['text_projection', 'logit_scale', 'attn_mask'];

const LAYER: ReadonlyMap<string, string> = new Map([
  ['ln_1.', 'layer_norm1.'],
  ['ln_2.', 'layer_norm2.'],
  ['mlp.c_fc.', 'mlp.fc1.'],
  ['mlp.c_proj.', 'mlp.fc2.'],
  ['attn.out_proj.', 'self_attn.out_proj.'],
]);

/**
 * The weights of the first `layers` layers under transformers' names. A name that is none of OpenCLIP's stays what it is,
 * for the check of names to report.
 */
export function openClipWeights(file: Safetensors, layers: number): readonly Weight[] {
  return [...file.tensors.keys()].flatMap((stored): readonly Weight[] => {
    if (!stored.startsWith(OPEN_CLIP_PREFIX)) return [];
    const name = stored.slice(OPEN_CLIP_PREFIX.length);
    const whole = WHOLE.get(name);
    if (whole !== undefined) return [weightOf(file, stored, `text_model.${whole}`)];
    if (UNUSED.includes(name)) return [];
    const [, number, rest] = /^transformer\.resblocks\.(\d{1,4})\.(.+)$/.exec(name) ?? [];
    if (rest === undefined) return [weightOf(file, stored)];
    if (Number(number) >= layers) return [];
    const layer = `text_model.encoder.layers.${Number(number)}.`;
    const together = /^attn\.in_proj_(weight|bias)$/.exec(rest)?.[1];
    if (together !== undefined)
      return ['q_proj', 'k_proj', 'v_proj'].map((one, at) =>
        thirdOf(weightOf(file, stored, `${layer}self_attn.${one}.${together}`), at),
      );
    const [from, to] = [...LAYER].find(([prefix]) => rest.startsWith(prefix)) ?? [];
    return [weightOf(file, stored, from === undefined ? stored : layer + to + rest.slice(from.length))];
  });
}

/** The first, second or third part of a tensor's rows. One without three equal parts keeps its shape, which is reported. */
function thirdOf(weight: Weight, at: number): Weight {
  const [rows = 0, ...rest] = weight.shape;
  if (rows % 3 !== 0) return weight;
  const part = <A extends Float32Array | Uint16Array | Uint8Array>(values: A): A =>
    values.slice((at * values.length) / 3, ((at + 1) * values.length) / 3) as A;
  return {
    ...weight,
    shape: [rows / 3, ...rest],
    read: async () => part(await weight.read()),
    readHalf: async () => part(await weight.readHalf()),
    readBytes: async () => part(await weight.readBytes()),
  };
}
