/** What was trained, as an adapter file is: modules in the method's form, the run's facts in the header. */
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { type RunFacts, withRun } from '../../models/io/adapter-run.ts';
import type { Base } from '../../models/io/base.ts';
import type { Decided, Method } from '../../selora/methods/method.ts';
import { methodOf } from '../../selora/methods/registry.ts';
import { moduleName, networks, partOf } from '../../selora/networks.ts';
import type { RunConfig } from '../config/config.ts';
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
export async function* modulesOf(
  adapters: HostModules,
  places: ModelPlaces,
  { needsWeight }: Method,
  base: Pick<Base, 'parts'>,
) {
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
  base: Pick<Base, 'parts'>,
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
