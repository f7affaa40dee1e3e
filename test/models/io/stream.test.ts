/** Weights are streamed: whoever opens or writes a model holds one tensor at a time, whatever form the files have. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import type { Backend } from '../../../core/index.ts';
import { openBase } from '../../../models/io/base.ts';
import { filesOf, writeBase } from '../../../models/io/base-write.ts';
import { copyWeights, type Weight, type WeightSource, weightSource } from '../../../models/io/weights.ts';
import { PARTS } from '../../../models/names.ts';
import { load } from '../../../models/spec.ts';
import { specsOf } from '../../../train/model/model.ts';
import { writeTinyBase } from '../../support/tiny-base.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-stream-'));
const folder = path.join(scratch, 'base');
beforeAll(() => writeTinyBase(folder));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A source that knows how many of its reads are under way, and how many there were. */
function watched(source: WeightSource): { source: WeightSource; most: () => number; reads: () => number } {
  let [now, most, reads] = [0, 0, 0];
  const counted =
    <T>(read: () => Promise<T>) =>
    async (): Promise<T> => {
      reads++;
      most = Math.max(most, ++now);
      try {
        return await read();
      } finally {
        now--;
      }
    };
  const weights = [...source.weights.values()].map(
    (w): Weight => ({
      ...w,
      read: counted(w.read),
      readHalf: counted(w.readHalf),
      readBytes: counted(w.readBytes),
    }),
  );
  return { source: weightSource(source.label, weights), most: () => most, reads: () => reads };
}

describe('one tensor at a time', () => {
  it.each(['f32', 'f16', 'nf4'] as const)('into a backend as %s, each read once', async (stored) => {
    const base = await openBase(folder);
    const specs = specsOf(base);
    const backend = wasmBackend({ threads: 1 }) as Backend;
    const seen = {
      unet: watched(base.parts.unet),
      text_encoder: watched(base.parts.text_encoder),
      vae: watched(base.parts.vae),
    };
    const how = { backend, weights: stored };
    await load(specs.unet, seen.unet.source, how);
    await load(specs.text, seen.text_encoder.source, how);
    await load(specs.vae, seen.vae.source, how);
    for (const part of PARTS)
      expect([seen[part].most(), seen[part].reads()], part).toEqual([1, base.parts[part].weights.size]);
    await backend.close();
  });

  it.each([undefined, 'F16'] as const)('into a folder (%s), each read once', async (dtype) => {
    const base = await openBase(folder);
    const seen = PARTS.map((part) => watched(base.parts[part]));
    const weights = Object.fromEntries(PARTS.map((part, i) => [part, copyWeights(seen[i]!.source, dtype)])) as never;
    await writeBase(path.join(scratch, `copy-${dtype}`), { ...filesOf(base), weights });
    for (const [i, part] of PARTS.entries())
      expect([seen[i]!.most(), seen[i]!.reads()]).toEqual([1, base.parts[part].weights.size]);
  });
});
