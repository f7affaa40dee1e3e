/** What a run keeps while it goes on: checkpoints, and the best validated weights. Nothing that is not finite is kept. */
import path from 'node:path';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import type { Base } from '../../models/io/base.ts';
import { moduleName } from '../../selora/networks.ts';
import type { RunConfig } from '../config/config.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { type HostTensor, saveCheckpoint } from '../run/checkpoint.ts';
import type { RunFolder } from '../run/folder.ts';
import type { Metrics } from '../run/metrics.ts';
import { bestTensors, stateTensors, unpadded } from '../run/tensors.ts';
import type { Chosen } from '../step/ranks.ts';
import type { Network } from '../step/state.ts';
import { adapterFileOf } from './adapter-form.ts';
import type { Origin } from './origin.ts';
import type { Standing } from './standing.ts';
import type { Validated } from './validate.ts';

/** The first module that holds what is not finite, in words: `unet.mid_block…: B is NaN (1 of 137 modules)`. */
function spoiltModule(tensors: ReadonlyMap<string, HostTensor>): string | undefined {
  const of = (name: string) => name.split('|') as [network: Network, path: string, field: string];
  const all = new Set<string>();
  const spoilt = new Map<string, string>();
  for (const [name, { data }] of tensors) {
    const [network, path, field] = of(name);
    const module = moduleName(network, path);
    all.add(module);
    const bad = data.find((x) => !Number.isFinite(x));
    if (bad !== undefined && !spoilt.has(module)) spoilt.set(module, `${field} is ${bad}`);
  }
  for (const [module, what] of spoilt) return `${module}: ${what} (${spoilt.size} of ${all.size} modules)`;
  return undefined;
}

export type Keeper = {
  /** writes a checkpoint. @throws RangeError naming step and module where the state is not finite */
  save(now: Standing): Promise<void>;
  /** keeps the weights where they are the best so far */
  offer(now: Standing, validated: Validated, row: { readonly step: number }): Promise<Standing>;
  /** @throws RangeError naming step and module: the loss of this step is not finite */
  refuse(step: number, loss: number, state: Standing['state']): Promise<never>;
};

export function keeper(
  run: RunFolder,
  c: RunConfig,
  chosen: Chosen,
  linears: ModelPlaces,
  base: Base,
  origin: Origin,
  metrics: Metrics,
  savedAt: number,
): Keeper {
  let saved = savedAt;
  const advice = () => `lower --lr or use --clip (last checkpoint: ${saved === 0 ? 'none' : `step ${saved}`})`;
  return {
    async save({ state, progress, best }) {
      const tensors = await stateTensors(state);
      const spoilt = spoiltModule(tensors);
      if (spoilt !== undefined) throw new RangeError(`step ${progress.step}: ${spoilt}; ${advice()}`);
      const info = { ...progress, ...origin, metrics: await metrics.sync() };
      const all = new Map([...tensors, ...(best ? bestTensors(best.adapters) : [])]);
      await saveCheckpoint(run, all, info as never);
      saved = progress.step;
    },
    async offer(now, { loss }, row) {
      const { step, ranks, best } = now.progress;
      if (!Number.isFinite(loss) || (best && loss >= best.loss)) return now;
      const adapters = await unpadded(chosen, now.state, ranks);
      const file = await adapterFileOf(adapters, linears, step, c, base, origin.base, [...metrics.rows(), row]);
      await writeAdapter(path.join(run.path, 'best.safetensors'), file, 'diffusers', { public: c.public });
      return { ...now, progress: { ...now.progress, best: { step, loss } }, best: { step, loss, adapters } };
    },
    async refuse(step, loss, state) {
      const spoilt = spoiltModule(await stateTensors(state));
      throw new RangeError(
        `step ${step}: the loss is ${loss}; ${advice()}${spoilt === undefined ? '' : `; first spoilt: ${spoilt}`}`,
      );
    },
  };
}
