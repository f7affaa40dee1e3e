/** What a run leaves for other programs: the adapter file and, on request, the merged model. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { entries } from '../../core/index.ts';
import type { AdapterFile } from '../../models/io/adapter-file.ts';
import type { AtomicOptions } from '../../models/io/atomic.ts';
import type { Base } from '../../models/io/base.ts';
import { writeBase } from '../../models/io/base-write.ts';
import { type TensorOut, writeSafetensors } from '../../models/io/safetensors-write.ts';
import { toKohya } from '../../models/names.ts';
import type { Field } from '../../selora/methods/method.ts';
import { methodOf } from '../../selora/methods/registry.ts';
import { networks } from '../../selora/networks.ts';
import type { RunConfig } from '../config/config.ts';
import { mergedModel } from '../model/merged-weights.ts';
import { tokenizerOf } from '../model/model.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import type { HostModules } from '../run/tensors.ts';
import { modulesOf } from './adapter-form.ts';

/**
 * Base + adapter as a diffusers folder, each weight in the number format the base stores it in. Streamed from the base's
 * own files: a model that fills the backend as halves could not be merged there in f32. An older folder is replaced.
 */
export async function writeMerged(
  folder: string,
  base: Base,
  adapter: AdapterFile,
  options: AtomicOptions,
): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await writeBase(
    path.resolve(folder),
    {
      configFiles: base.configFiles,
      tokenizerFiles: (await tokenizerOf(base)).raw,
      weights: mergedModel(base, adapter),
    },
    options,
  );
}

/** Writes what was trained by LyCORIS' names, small where the change is of full rank; false where the method has no such form. */
export async function writeLycoris(
  target: string,
  adapters: HostModules,
  places: ModelPlaces,
  c: RunConfig,
  base: Base,
  options: AtomicOptions,
): Promise<boolean> {
  const method = methodOf(c.method);
  if (!method.toLycoris) return false;
  const tensors = new Map<string, TensorOut>();
  for await (const { name, trained, place, weight } of modulesOf(adapters, places, method, base))
    for (const [part, { shape, data }] of Object.entries(method.toLycoris(trained, place, c, weight || undefined)))
      tensors.set(`${toKohya(name)}.${part}`, { dtype: 'F32', shape, data });
  await writeSafetensors(target, tensors, new Map([['ss_network_module', 'lycoris.kohya']]), options);
  return true;
}

/** How many numbers are trained; what modules share counts once. */
export function parameters(adapters: HostModules, c: RunConfig): number {
  const fields = new Map(entries<Field>(methodOf(c.method).fields([1, 1], 1, c)));
  const seen = new Set<string>();
  let total = 0;
  for (const n of networks)
    for (const { fields: all } of adapters[n].values())
      for (const [name, { shape, data }] of Object.entries(all)) {
        const { trained, tied } = fields.get(name)!;
        const key = `${n} ${name} ${shape.join()}`;
        if (!trained || (tied && seen.has(key))) continue;
        seen.add(key);
        total += data.length;
      }
  return total;
}
