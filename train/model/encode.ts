/** What the loop trains on: pairs with token ids and the VAE's posterior, made once. */
import { type Backend, read, tensor } from '../../core/index.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import type { VaeConfig } from '../../models/config.ts';
import type { Vae } from '../../models/vae/index.ts';
import type { Pair } from '../data/pair.ts';
import { encodeProgram } from './programs.ts';

/** A pair as the loop needs it: latents are mean + std·noise, times the scaling factor (already applied). */
export interface Encoded {
  readonly id: string;
  readonly text: string;
  /** 77 of each chunk */
  readonly ids: Int32Array;
  readonly cut: boolean;
  readonly mean: Float32Array;
  readonly std: Float32Array;
}

/** pictures encoded at a time: about half a million pixels */
export const pairsPerEncoding = (side: number): number => Math.max(1, Math.min(8, Math.floor(2 ** 19 / (side * side))));
/** Encodes pictures and texts once; the posterior is kept, so every step still draws a fresh sample. */
export async function encodePairs(
  backend: Backend,
  vae: Vae,
  config: VaeConfig,
  tokenizer: Tokenizer,
  pairs: readonly Pair[],
  side: number,
  {
    captionChunks = 1,
    onProgress,
  }: { readonly captionChunks?: number; readonly onProgress?: (done: number, of: number) => void } = {},
): Promise<Encoded[]> {
  const encode = encodeProgram(backend, config);
  const out: Encoded[] = [];
  const group = pairsPerEncoding(side);
  for (let from = 0; from < pairs.length; from += group) {
    const some = pairs.slice(from, from + group);
    const x = new Float32Array(some.length * side * side * 3);
    for (const [i, p] of some.entries()) x.set(await p.pixels(), i * side * side * 3);
    const q = encode(vae, tensor(x, [some.length, side, side, 3]));
    const [mean, std] = [(await read(q.mean)) as Float32Array, (await read(q.std)) as Float32Array];
    const each = mean.length / some.length;
    for (const [i, p] of some.entries()) {
      const { ids, cut } = tokenizer.encode(p.text, captionChunks);
      out.push({
        id: p.id,
        text: p.text,
        ids,
        cut,
        mean: mean.slice(i * each, (i + 1) * each),
        std: std.slice(i * each, (i + 1) * each),
      });
    }
    onProgress?.(out.length, pairs.length);
  }
  encode.trim();
  return out;
}
