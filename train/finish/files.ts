/** What a run leaves for other programs: the adapter file and, on request, the merged model. */
import path from 'node:path';
import { type Backend, evaluate } from '../../core/index.ts';
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { type RunFacts, withRun } from '../../models/io/adapter-run.ts';
import { filesOf, writeBase } from '../../models/io/base-write.ts';
import { toCheckpoint } from '../../models/spec.ts';
import type { Adapters } from '../../selora/adapter.ts';
import type { Decision } from '../../selora/fisher.ts';
import { merge } from '../../selora/merge.ts';
import type { RunConfig } from '../config.ts';
import type { LoadedModel } from '../model.ts';
import { type Ranks, unpadded } from '../run-state.ts';
import type { PerNetwork, State } from '../step.ts';

/** A row of the metrics as far as its expansion test goes. */
type Tested = { readonly step: number; readonly tests?: unknown };

/** Every expansion of a run in order. */
const expansionsOf = (rows: readonly Tested[]): RunFacts['rankHistory'] =>
  rows.flatMap(({ step, tests }) =>
    ((tests ?? []) as readonly Decision[])
      .filter(({ expanded }) => expanded)
      // +∞ (nothing but the candidate has a gradient) is no JSON number
      .map(({ module, rankAfter, ratio }) => ({
        step,
        module,
        rank: rankAfter,
        ratio: Number.isFinite(ratio) ? ratio : null,
      })),
  );

/** The adapters of a state as a file: mixed ranks, scale multiplied into B, the run's facts in the header. */
export async function adapterFileOf(
  state: State,
  ranks: Ranks,
  c: RunConfig,
  baseHash: string,
  rows: readonly Tested[],
): Promise<AdapterFile> {
  const plain = await unpadded(state, ranks);
  const modules = new Map<string, AdapterModule>();
  for (const [path, a] of plain.unet) modules.set(`unet.${path}`, { ...a, scale: c.scale });
  for (const [path, a] of plain.text) modules.set(`text_encoder.${path}`, { ...a, scale: c.scale });
  const selora = c.method === 'selora';
  return withRun(
    { modules, metadata: new Map() },
    {
      format: 'selora/1',
      method: c.method,
      lambda: selora ? c.lambda : null,
      testEvery: selora ? c.testEvery : null,
      scale: c.scale,
      initA: c.gainA,
      steps: rows.at(-1)?.step ?? 0,
      baseHash,
      rankHistory: expansionsOf(rows),
      seed: c.seed,
      targets: c.targets,
    },
  );
}

/** Base + adapters as a diffusers folder. @throws FileError when the folder is there already */
export async function writeMerged(
  folder: string,
  { base, pipeline }: LoadedModel,
  adapters: PerNetwork<Adapters>,
  scale: number,
  backend: Backend,
): Promise<void> {
  await writeBase(path.resolve(folder), {
    ...filesOf(base),
    weights: {
      unet: toCheckpoint(evaluate(merge(pipeline.unet, adapters.unet, scale), backend), 'F32'),
      vae: toCheckpoint(pipeline.vae, 'F32'),
      text_encoder: toCheckpoint(evaluate(merge(pipeline.text, adapters.text, scale), backend), 'F32'),
    },
  });
}

export const parameters = (file: AdapterFile): number =>
  [...file.modules.values()].reduce((n, m) => n + m.A.length + m.B.length, 0);
