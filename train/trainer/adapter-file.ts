/** What a run leaves for other programs: the adapter file and, on request, the merged model. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { entries } from '../../core/index.ts';
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { type RunFacts, withRun } from '../../models/io/adapter-run.ts';
import type { AtomicOptions } from '../../models/io/atomic.ts';
import type { Base } from '../../models/io/base.ts';
import { writeBase } from '../../models/io/base-write.ts';
import { type TensorOut, writeSafetensors } from '../../models/io/safetensors-write.ts';
import { toKohya } from '../../models/names.ts';
import type { Decided, Field, Method } from '../../selora/methods/method.ts';
import { methodOf } from '../../selora/methods/registry.ts';
import { moduleName, networks, partOf } from '../../selora/networks.ts';
import type { RunConfig } from '../config/config.ts';
import { mergedModel } from '../model/merged-weights.ts';
import { tokenizerOf } from '../model/model.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import type { HostModules } from '../run/tensors.ts';

/** A row of the metrics as far as its expansion test goes. */
type Tested = { readonly step: number; readonly tests?: unknown };

/** Every expansion of a run in order. */
const expansionsOf = (rows: readonly Tested[]): RunFacts['rankHistory'] =>
  rows.flatMap(({ step, tests }) =>
    ((tests ?? []) as readonly (Decided & { readonly ratio?: number })[])
      .filter(({ expanded }) => expanded)
      // +∞ (nothing but the candidate has a gradient) is no JSON number; other tests than the paper's have none
      .map(({ module, rankAfter, ratio }) => ({
        step,
        module,
        rank: rankAfter,
        ratio: ratio !== undefined && Number.isFinite(ratio) ? ratio : null,
      })),
  );

/** Every module with its place, and its frozen weight where the method asks for that. */
async function* modulesOf(adapters: HostModules, places: ModelPlaces, { needsWeight }: Method, base: Base) {
  for (const n of networks)
    for (const [path, trained] of adapters[n]) {
      const weight = needsWeight && (await base.parts[partOf[n]].get(`${path}.weight`).read());
      yield { name: moduleName(n, path), trained, place: places[n].get(path)!, weight };
    }
}

/**
 * What was trained in `step` updates as a file, in the method's form, the run's facts in the header.
 */
export async function adapterFileOf(
  adapters: HostModules,
  linears: ModelPlaces,
  step: number,
  c: RunConfig,
  base: Base,
  baseHash: string,
  rows: readonly Tested[],
): Promise<AdapterFile> {
  const method = methodOf(c.method);
  const modules = new Map<string, AdapterModule>();
  for await (const { name, trained, place, weight } of modulesOf(adapters, linears, method, base)) {
    const module = method.toFile(trained, place, c, weight || undefined);
    if (module) modules.set(name, module);
  }
  return withRun(
    { modules, metadata: new Map() },
    {
      format: 'selora/1',
      method: c.method,
      ...method.facts(c),
      steps: step,
      baseHash,
      rankHistory: expansionsOf(rows.filter((row) => row.step <= step)),
      seed: c.seed,
      targets: c.targets,
      ...(c.captionChunks === 1 ? {} : { captionChunks: c.captionChunks }),
    },
  );
}

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
