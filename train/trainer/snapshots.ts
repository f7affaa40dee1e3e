/** Pictures of the first held-out reports while a run goes on, drawn as those at its end. */
import path from 'node:path';
import type { Backend } from '../../core/index.ts';
import type { RunConfig } from '../config/config.ts';
import { encodePng } from '../data/pictures/image-write.ts';
import { adaptersFromFile } from '../model/adapters.ts';
import type { LoadedModel } from '../model/model.ts';
import { adaptedPipeline, createGenerator, type Generator, pictureOptions } from '../model/sample.ts';
import { makeRunFolder, writeRunFile } from '../run/atomic.ts';
import type { RunFolder } from '../run/folder.ts';
import type { HostModules } from '../run/tensors.ts';
import { adapterFileOf } from './adapter-form.ts';
import type { RunPair } from './pairs.ts';

/** Writes `samples/step-000400-01.png` and so on. Programs are compiled at the first call. */
export function snapshots({
  run,
  config: c,
  model,
  backend,
  held,
  side,
}: {
  readonly run: RunFolder;
  readonly config: RunConfig;
  readonly model: LoadedModel;
  readonly backend: Backend;
  readonly held: readonly RunPair[];
  readonly side: number;
}): (step: number, adapters: HostModules) => Promise<void> {
  const texts = held.slice(0, c.samples).map((p) => p.text);
  let generate: Generator | undefined;
  return async (step, adapters) => {
    if (texts.length === 0) return;
    generate ??= createGenerator(backend, model.pipeline.configs);
    const file = await adapterFileOf(adapters, model.places, step, c, model.base, '', []);
    const pipeline = adaptedPipeline(model.pipeline, adaptersFromFile(file, model.places), backend);
    const pictures = await generate(pipeline, texts, pictureOptions(c, side, texts.length));
    await makeRunFolder(path.join(run.path, 'samples'));
    for (const [i, picture] of pictures.entries()) {
      const name = `step-${String(step).padStart(6, '0')}-${String(i + 1).padStart(2, '0')}.png`;
      await writeRunFile(path.join(run.path, 'samples', name), await encodePng(picture, side));
    }
  };
}
