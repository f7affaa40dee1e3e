/** Pictures of the world as latents and their captions as hidden states: made once, kept in the work folder. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Backend } from '../../core/index.ts';
import type { TextEncoder } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import { writeFileAtomic } from '../../models/io/atomic.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { writeSafetensors } from '../../models/io/safetensors-write.ts';
import type { Vae } from '../../models/vae/index.ts';
import { LATENT } from './config.ts';
import { encodeCaptions } from './unet.ts';
import { encodeAll, vaeParsed } from './vae.ts';
import type { Captioned } from './world.ts';

const EACH = LATENT * LATENT * 4;

/**
 * The first `count` pictures of a set: encoded, and written to `folder/NAME.latents.safetensors` with their captions, from
 * where a later start reads them. Drawing takes longer than encoding: some tens of milliseconds a picture.
 */
export async function encodedSet(
  o: { readonly backend: Backend; readonly vae: Vae; readonly text: TextEncoder; readonly tokenizer: Tokenizer },
  folder: string,
  name: string,
  count: number,
  pictureAt: (index: number) => Captioned,
): Promise<{ readonly means: readonly Float32Array[]; readonly contexts: readonly Float32Array[] }> {
  const file = path.join(folder, `${name}.${count}.latents.safetensors`);
  const words = path.join(folder, `${name}.${count}.captions.json`);
  if (!existsSync(file) || !existsSync(words)) {
    const started = performance.now();
    const captions: string[] = [];
    const greys = (function* () {
      for (let i = 0; i < count; i++) {
        const { pixels, caption } = pictureAt(i);
        captions.push(caption);
        yield pixels;
      }
    })();
    const { means } = await encodeAll(o.backend, { vae: o.vae, config: vaeParsed }, greys, count);
    const all = new Float32Array(count * EACH);
    for (const [i, m] of means.entries()) all.set(m, i * EACH);
    const tensors = new Map([['means', { dtype: 'F32' as const, shape: [count, EACH], data: async () => all }]]);
    await writeSafetensors(file, tensors, new Map());
    await writeFileAtomic(words, `${JSON.stringify(captions)}\n`);
    console.log(`${name}: drew and encoded ${count} in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  }
  const all = await (await openSafetensors(file)).float32('means');
  const captions = JSON.parse(await readFile(words, 'utf8')) as string[];
  return {
    means: captions.map((_, i) => all.slice(i * EACH, (i + 1) * EACH)),
    contexts: await encodeCaptions(o.backend, o.text, o.tokenizer, captions),
  };
}
