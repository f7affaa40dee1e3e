/** What a run leaves for other programs: the adapter file and, on request, the merged model. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { type RunFacts, withRun } from '../../models/io/adapter-run.ts';
import type { AtomicOptions } from '../../models/io/atomic.ts';
import type { Base } from '../../models/io/base.ts';
import { writeBase } from '../../models/io/base-write.ts';
import type { Decided } from '../../selora/methods/method.ts';
import { methodOf } from '../../selora/methods/registry.ts';
import { moduleName, networks } from '../../selora/networks.ts';
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

/**
 * What was trained in `step` updates as a file, in the method's form, the run's facts in the header.
 */
export function adapterFileOf(
  adapters: HostModules,
  linears: ModelPlaces,
  step: number,
  c: RunConfig,
  baseHash: string,
  rows: readonly Tested[],
): AdapterFile {
  const method = methodOf(c.method);
  const modules = new Map<string, AdapterModule>();
  for (const n of networks)
    for (const [path, trained] of adapters[n]) {
      const module = method.toFile(trained, linears[n].get(path)!, c);
      if (module) modules.set(moduleName(n, path), module);
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

export const parameters = (file: AdapterFile): number =>
  [...file.modules.values()].reduce((n, m) => n + m.A.length + m.B.length, 0);
