/** Pictures through the frozen autoencoder and back: the best that any model on these latents can draw. */
import { type Backend, read, tensor } from '../../core/index.ts';
import { pairsPerEncoding } from './encode.ts';
import type { Pipeline } from './pipeline.ts';
import { decodeProgram, encodeProgram } from './programs.ts';

/** RGB [side, side, 3] in [−1, 1] → the decoded mean of its posterior, of the same form. */
export async function reconstruct(
  backend: Backend,
  { vae, configs }: Pick<Pipeline, 'vae' | 'configs'>,
  pictures: readonly Float32Array[],
  side: number,
): Promise<Float32Array[]> {
  const [encode, decode] = [encodeProgram(backend, configs.vae), decodeProgram(backend, configs.vae)];
  const out: Float32Array[] = [];
  const [group, each] = [pairsPerEncoding(side), side * side * 3];
  for (let from = 0; from < pictures.length; from += group) {
    const some = pictures.slice(from, from + group);
    const x = new Float32Array(some.length * each);
    for (const [i, p] of some.entries()) x.set(p, i * each);
    const { mean } = encode(vae, tensor(x, [some.length, side, side, 3]));
    const y = (await read(decode(vae, mean))) as Float32Array;
    for (const i of some.keys()) out.push(y.slice(i * each, (i + 1) * each));
  }
  encode.trim();
  decode.trim();
  return out;
}
