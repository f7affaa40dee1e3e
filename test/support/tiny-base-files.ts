/** Files of the tiny model: their names, damage to them, and a check that every value is the one written. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import { type OpenOptions, openBase } from '../../models/io/base.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { type TensorOut, writeSafetensors } from '../../models/io/safetensors-write.ts';
import { checkWeights } from '../../models/io/weights.ts';
import { PARTS } from '../../models/names.ts';
import { sizeOf, TINY_SPECS, tinyWeights, valueAt } from './tiny-base.ts';

export const UNET = 'unet/diffusion_pytorch_model.safetensors';
export const VAE = 'vae/diffusion_pytorch_model.safetensors';
export const TEXT = 'text_encoder/model.safetensors';

/** Every value of every part is the one that was written. */
export async function expectTiny(location: string, options: OpenOptions = {}): Promise<void> {
  const base = await openBase(location, options);
  for (const part of PARTS) {
    checkWeights(base.parts[part], TINY_SPECS[part]);
    for (const [t, [name, shape]] of [...TINY_SPECS[part]].entries()) {
      const values = await base.parts[part].get(name).read();
      expect(values).toHaveLength(sizeOf(shape));
      for (const [i, value] of values.entries())
        if (value !== valueAt(t, i)) throw new Error(`${part} ${name} ${i}: ${value}`);
    }
  }
}

/** Rewrites a weight file with its tensors changed. */
export async function rewrite(
  file: string,
  change: (name: string, tensor: TensorOut) => readonly (readonly [string, TensorOut])[],
) {
  const opened = await openSafetensors(file);
  const tensors: [string, TensorOut][] = [];
  for (const [name, { dtype, shape }] of opened.tensors) {
    tensors.push([name, { dtype, shape, data: await opened.bytes(name) }]);
  }
  await writeSafetensors(file, new Map(tensors.flatMap(([name, tensor]) => change(name, tensor))));
}

export const positions = (ids: Int32Array): TensorOut => ({ dtype: 'I64', shape: [1, ids.length], data: ids });

/** Splits the U-Net over two files. */
export async function shard(
  folder: string,
  change: (map: Record<string, string>) => void = () => undefined,
): Promise<void> {
  const all = [...tinyWeights('unet')];
  const files = [
    'diffusion_pytorch_model-00001-of-00002.safetensors',
    'diffusion_pytorch_model-00002-of-00002.safetensors',
  ];
  const map: Record<string, string> = {};
  for (const [n, file] of files.entries()) {
    const some = all.filter((_, i) => i % 2 === n);
    await writeSafetensors(path.join(folder, 'unet', file), new Map(some));
    for (const [name] of some) map[name] = file;
  }
  change(map);
  const index = path.join(folder, 'unet/diffusion_pytorch_model.safetensors.index.json');
  writeFileSync(index, JSON.stringify({ metadata: { total_size: 1 }, weight_map: map }));
}
