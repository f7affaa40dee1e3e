/** What a run leaves for other programs: the adapter file and, on request, the merged model. */
import path from 'node:path';
import { type Backend, evaluate } from '../../core/index.ts';
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { filesOf, writeBase } from '../../models/io/base-write.ts';
import { toCheckpoint } from '../../models/spec.ts';
import type { Adapters } from '../../selora/adapter.ts';
import { merge } from '../../selora/merge.ts';
import type { RunConfig } from '../config.ts';
import type { LoadedModel } from '../model.ts';
import { type Ranks, unpadded } from '../run-state.ts';
import type { PerNetwork, State } from '../step.ts';

/** The adapters of a state as a file: mixed ranks, scale multiplied into B, the run's facts in the header. */
export async function adapterFileOf(
  state: State,
  ranks: Ranks,
  c: RunConfig,
  baseHash: string,
  history: unknown,
): Promise<AdapterFile> {
  const plain = await unpadded(state, ranks);
  const modules = new Map<string, AdapterModule>();
  for (const [path, a] of plain.unet) modules.set(`unet.${path}`, { ...a, scale: c.scale });
  for (const [path, a] of plain.text) modules.set(`text_encoder.${path}`, { ...a, scale: c.scale });
  const facts = {
    method: c.method,
    lambda: c.lambda,
    testEvery: c.testEvery,
    scale: c.scale,
    gainA: c.gainA,
    seed: c.seed,
    targets: c.targets,
    steps: c.steps,
    base: baseHash,
    history,
  };
  return { modules, metadata: new Map([['selora', JSON.stringify(facts)]]) };
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
