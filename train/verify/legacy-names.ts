/** Checks that an autoencoder under the names of SD 1.5's own file is the one under today's names, bit for bit. */
import { join } from 'node:path';
import { openPart } from '../../models/io/part.ts';
import type { GoldenCase } from './golden.ts';

export const LEGACY_FILES = ['vae-legacy-names'] as const;

/** @throws FileError when a folder or file is missing or malformed */
export async function* verifyLegacyNames(directory: string): AsyncGenerator<GoldenCase> {
  const legacy = (await openPart(join(directory, 'vae-legacy-names'), 'vae')).source;
  const today = (await openPart(join(directory, 'tiny-sd', 'vae'), 'vae')).source;
  let wrong = 0;
  for (const name of new Set([...legacy.weights.keys(), ...today.weights.keys()])) {
    const [a, b] = [legacy.weights.get(name), today.weights.get(name)];
    if (!a || !b || a.shape.join() !== b.shape.join()) {
      wrong++;
      continue;
    }
    const [old, current] = [await a.read(), await b.read()];
    if (old.some((value, i) => value !== current[i])) wrong++;
  }
  yield {
    case: `vae-legacy-names: ${today.weights.size} tensors under other names`,
    error: wrong,
    tolerance: 0,
    why: 'only names differ',
  };
}
