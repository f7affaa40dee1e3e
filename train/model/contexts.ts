/** Text contexts made once: where no adapter is on the text encoder, a caption means the same at every step. */
import { type Backend, read, type Tensor, tensor } from '../../core/index.ts';
import { idsTensor, type TextEncoder } from '../../models/clip/text-encoder.ts';
import type { TextEncoderConfig } from '../../models/config.ts';
import { contextProgram } from './programs.ts';

/** [n, t, d] of the captions whose ids these are, as they were given to `makeContexts`. */
export type Contexts = (ids: readonly Int32Array[]) => Tensor;

/** Above this the encoder runs at every step instead of its outputs being kept. */
const MOST_BYTES = 2 ** 30;
/** captions encoded at a time */
const GROUP = 16;

/**
 * Encodes every caption once and keeps the results on the host; undefined where they would take more than a gibibyte
 * (4,500 captions of SD 1.5). Found again by the ids array itself, not by its values.
 */
export async function makeContexts(
  backend: Backend,
  text: TextEncoder,
  config: TextEncoderConfig,
  captions: readonly Int32Array[],
  chunks = 1,
): Promise<Contexts | undefined> {
  const all = [...new Set(captions)];
  const encode = contextProgram(backend, config);
  const known = new Map<Int32Array, Float32Array>();
  let shape: readonly [number, number] = [0, 0];
  for (let from = 0; from < all.length; from += GROUP) {
    const some = all.slice(from, from + GROUP);
    const out = encode(text, idsTensor(some, chunks));
    const [, t, d] = out.shape as [number, number, number];
    if (4 * t * d * all.length > MOST_BYTES) return undefined;
    shape = [t, d];
    const values = (await read(out)) as Float32Array;
    for (const [i, ids] of some.entries()) known.set(ids, values.slice(i * t * d, (i + 1) * t * d));
  }
  encode.trim();
  return (ids) => {
    const [t, d] = shape;
    const out = new Float32Array(ids.length * t * d);
    for (const [i, one] of ids.entries()) out.set(known.get(one)!, i * t * d);
    return tensor(out, [ids.length, t, d]);
  };
}
