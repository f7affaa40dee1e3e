/** What the loop trains on: pairs with token ids and the VAE's posterior, made once. */
import { type Backend, read, tensor } from '../../core/index.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import type { VaeConfig } from '../../models/config.ts';
import type { Vae } from '../../models/vae/index.ts';
import type { Size } from '../data/buckets.ts';
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
  /** [h, w] of the latents, where they are not of the run's square */
  readonly latent?: readonly [number, number];
}

/** pictures encoded at a time: about half a million pixels */
export const pairsPerEncoding = (side: number): number => Math.max(1, Math.min(8, Math.floor(2 ** 19 / (side * side))));

/** Which pairs have pictures of which size; all of one where there are no buckets. */
function bySize(pairs: readonly Pair[], side: number): readonly (Size & { readonly places: readonly number[] })[] {
  const groups = new Map<string, Size & { readonly places: number[] }>();
  for (const [at, { sized }] of pairs.entries()) {
    const { width, height } = sized ?? { width: side, height: side };
    const key = `${width}x${height}`;
    const group = groups.get(key);
    if (group) group.places.push(at);
    else groups.set(key, { width, height, places: [at] });
  }
  return [...groups.values()];
}

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
  const out = new Array<Encoded>(pairs.length);
  let done = 0;
  for (const { width, height, places } of bySize(pairs, side)) {
    const pixels = width * height * 3;
    const group = pairsPerEncoding(side);
    for (let from = 0; from < places.length; from += group) {
      const some = places.slice(from, from + group).map((at) => ({ at, p: pairs[at]! }));
      const x = new Float32Array(some.length * pixels);
      for (const [i, { p }] of some.entries()) x.set(await (p.sized ?? p).pixels(), i * pixels);
      const q = encode(vae, tensor(x, [some.length, height, width, 3]));
      const [mean, std] = [(await read(q.mean)) as Float32Array, (await read(q.std)) as Float32Array];
      const each = mean.length / some.length;
      const [, h, w] = q.mean.shape as [number, number, number, number];
      for (const [i, { at, p }] of some.entries()) {
        const { ids, cut } = tokenizer.encode(p.text, captionChunks);
        out[at] = {
          id: p.id,
          text: p.text,
          ids,
          cut,
          mean: mean.slice(i * each, (i + 1) * each),
          std: std.slice(i * each, (i + 1) * each),
          ...(p.sized === undefined ? {} : { latent: [h, w] as const }),
        };
      }
      done += some.length;
      onProgress?.(done, pairs.length);
    }
  }
  encode.trim();
  return out;
}
