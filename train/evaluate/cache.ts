/** Features kept by content: a picture or text that was seen by an extractor is not computed again. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { writeSafetensors } from '../../models/io/safetensors-write.ts';
import { makeRunFolder } from '../run/atomic.ts';
import { duration } from '../words/format.ts';
import type { Embedder, Item } from './features.ts';

/** hash → features; an older file of the same extractor is read */
async function kept(file: string): Promise<Map<string, Float32Array>> {
  if (
    !(await stat(file).then(
      () => true,
      () => false,
    ))
  )
    return new Map();
  const opened = await openSafetensors(file);
  const out = new Map<string, Float32Array>();
  for (const name of opened.tensors.keys()) out.set(name, await opened.float32(name));
  return out;
}

/**
 * Features of all items, in their order. Progress with the time left goes to `say`; what is new is written to
 * `FOLDER/EXTRACTOR.safetensors` at the end, and when `signal` stops it.
 */
export async function featuresOf<T extends Item>(
  items: readonly T[],
  extractor: Embedder<T>,
  {
    folder,
    say,
    signal,
  }: { readonly folder: string | undefined; readonly say: (line: string) => void; readonly signal?: AbortSignal },
): Promise<readonly Float32Array[]> {
  const file = folder === undefined ? undefined : path.join(folder, `${extractor.id}.safetensors`);
  const known = file === undefined ? new Map<string, Float32Array>() : await kept(file);
  const fresh = [...new Map(items.filter((p) => !known.has(p.hash)).map((p) => [p.hash, p])).values()];
  const save = async () => {
    if (file === undefined || fresh.length === 0) return;
    await makeRunFolder(folder!);
    const tensors = new Map(
      [...known].map(([hash, data]) => [hash, { dtype: 'F32' as const, shape: [data.length], data }]),
    );
    await writeSafetensors(file, tensors, new Map(), {});
  };
  const began = performance.now();
  let told = began;
  try {
    for (let at = 0; at < fresh.length; at += extractor.batch) {
      signal?.throwIfAborted();
      const batch = fresh.slice(at, at + extractor.batch);
      for (const [i, f] of (await extractor.features(batch)).entries()) known.set(batch[i]!.hash, f);
      const [done, now] = [at + batch.length, performance.now()];
      if (now - told < 1000 && done < fresh.length) continue;
      told = now;
      const left = ((now - began) / 1000 / done) * (fresh.length - done);
      say(
        `features of ${done} of ${fresh.length} ${extractor.items}${done < fresh.length ? `, ${duration(left)} left` : ` in ${duration((now - began) / 1000)}`}`,
      );
    }
  } finally {
    await save();
  }
  return items.map((p) => known.get(p.hash)!);
}
