/** What a search chooses from: the adapters of finished runs, at every rank that is asked for. */
import path from 'node:path';
import { type AdapterFile, type AdapterModule, readAdapter } from '../../models/io/adapter-file.ts';
import { resizeModule } from '../../models/io/adapter-resize.ts';
import { type RunFacts, runOf } from '../../models/io/adapter-run.ts';
import { FileError } from '../../models/io/error.ts';
import { methodNames, methodOf } from '../../selora/methods/registry.ts';
import type { Candidate, SearchSpace } from '../../selora/search.ts';

/** One run's adapter. */
export interface Source {
  readonly name: string;
  readonly adapter: AdapterFile;
  readonly facts: RunFacts;
}

/** A choice of a module: none, or a run's change at a rank. */
export type Choice = undefined | { readonly source: number; readonly rank: number; readonly module: AdapterModule };

/** What may be chosen for each module. */
export interface Offers {
  readonly modules: readonly string[];
  readonly choices: readonly (readonly Choice[])[];
  readonly space: SearchSpace;
}

/** Reads a run's adapter. @throws FileError where the folder has none that tells its run */
export async function sourceOf(folder: string): Promise<Source> {
  const file = path.join(folder, 'adapter.safetensors');
  const adapter = await readAdapter(file);
  const facts = runOf(adapter, file);
  if (facts === undefined) throw new FileError(file, '', 'does not tell the run that made it');
  return { name: folder, adapter, facts };
}

const isNested = (method: string): boolean => methodNames.includes(method) && methodOf(method).nested === true;

/**
 * A module at a lower rank: its first ranks where the method trains any number of them to stand alone (DyLoRA), else the
 * nearest change of that rank.
 */
function atRank(module: AdapterModule, rank: number, nested: boolean): AdapterModule {
  if (rank === module.rank) return module;
  if (!nested) return resizeModule(module, rank).module;
  const A = new Float32Array(module.dIn * rank);
  for (let i = 0; i < module.dIn; i++) A.set(module.A.subarray(i * module.rank, i * module.rank + rank), i * rank);
  return { ...module, rank, A, B: module.B.slice(0, rank * module.dOut) };
}

/**
 * All choices of all modules that some source adapts, in the order of their names: none, then by source each rank that is
 * not above the module's own; the highest asked for stands for the module's own where that is lower.
 */
export function offersOf(sources: readonly Source[], ranks: readonly number[]): Offers {
  const modules = [...new Set(sources.flatMap(({ adapter }) => [...adapter.modules.keys()]))].sort();
  const choices = modules.map((name): readonly Choice[] => [
    undefined,
    ...sources.flatMap(({ adapter, facts }, source) => {
      const module = adapter.modules.get(name);
      if (module === undefined) return [];
      const own = [...new Set(ranks.map((rank) => Math.min(rank, module.rank)))];
      return own.map((rank) => ({ source, rank, module: atRank(module, rank, isNested(facts.method)) }));
    }),
  ]);
  const space = choices.map((all) => all.map((c) => (c === undefined ? 0 : c.rank * (c.module.dIn + c.module.dOut))));
  return { modules, choices, space };
}

/** The adapter that a candidate is. */
export function adapterOf({ modules, choices }: Offers, candidate: Candidate): ReadonlyMap<string, AdapterModule> {
  return new Map(
    candidate.flatMap((choice, m) => {
      const chosen = choices[m]![choice];
      return chosen === undefined ? [] : [[modules[m]!, chosen.module] as const];
    }),
  );
}
