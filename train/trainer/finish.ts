/** The end of a run: adapter files, pictures of held-out reports, detectors, and the report. */
import path from 'node:path';
import type { Backend } from '../../core/index.ts';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import { type Io, print } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { contactSheet, encodePng } from '../data/pictures/image-write.ts';
import { nearestPictures } from '../metrics/nearest.ts';
import { judgePictures } from '../metrics/obedience.ts';
import type { Encoded } from '../model/encode.ts';
import { adaptersFromFile, type LoadedModel } from '../model/model.ts';
import type { LoadedAdapters } from '../model/pipeline.ts';
import { adaptedPipeline, createGenerator, pictureOptions } from '../model/sample.ts';
import { writeReport } from '../report/write.ts';
import { makeRunFolder, writeRunFile } from '../run/atomic.ts';
import type { RunFolder } from '../run/folder.ts';
import type { PhaseClock } from '../run/phases.ts';
import { readComparison } from '../run/read.ts';
import type { HostModules } from '../run/tensors.ts';
import { textRankMaps } from '../words/progress.ts';
import { adapterFileOf, parameters, writeMerged } from './adapter-file.ts';
import type { RunData, RunPair } from './pairs.ts';
import type { Progress } from './progress.ts';
import { sampleFile, summarise } from './summary.ts';

/** Weights of a run and the step they are of. */
export interface Final {
  readonly name: 'best' | 'last';
  readonly step: number;
  readonly adapters: HostModules;
}

export interface Finish {
  readonly run: RunFolder;
  readonly config: RunConfig;
  readonly model: LoadedModel;
  readonly backend: Backend;
  readonly data: RunData;
  readonly encoded: { readonly validation: readonly Encoded[] };
  /** the weights the run ends with, and those it does not end with but keeps beside them */
  readonly final: Final;
  readonly other?: Final;
  readonly progress: Progress;
  readonly metrics: readonly ({ readonly step: number } & Readonly<Record<string, unknown>>)[];
  readonly clock: PhaseClock;
  readonly steps: number;
  readonly side: number;
  readonly command: string;
  readonly io: Io;
}

/** Real, base and adapted pictures of the first held-out reports; base and adapted start from the same noise. */
async function drawPictures(f: Finish, adapters: LoadedAdapters) {
  const { config: c, model, data, clock } = f;
  const { pipeline } = model;
  const held: readonly RunPair[] = [...data.test, ...data.validation];
  const chosen = held.slice(0, data.train[0]?.findings ? Math.max(c.samples, c.obedience) : c.samples);
  const options = pictureOptions(c, f.side);
  const generate = createGenerator(f.backend, pipeline.configs);
  const texts = chosen.map((p) => p.text);
  const base = await clock.time('sample pictures', () => generate(pipeline, texts, options));
  const adapted = await clock.time('sample pictures', () =>
    generate(adaptedPipeline(pipeline, adapters), texts, options),
  );
  return { chosen, base, adapted, real: await Promise.all(chosen.map((p) => p.pixels())) };
}

async function writePictures(
  f: Finish,
  shown: readonly RunPair[],
  pictures: { readonly [what in 'real' | 'base' | 'adapted']: readonly Float32Array[] },
): Promise<void> {
  if (shown.length === 0) return;
  await makeRunFolder(path.join(f.run.path, 'samples'));
  for (const i of shown.keys())
    for (const what of ['real', 'base', 'adapted'] as const)
      await writeRunFile(path.join(f.run.path, sampleFile(i, what)), await encodePng(pictures[what][i]!, f.side));
  const tiles = shown.flatMap((p, i) => [
    { pixels: pictures.real[i]!, caption: `real: ${p.text}` },
    { pixels: pictures.base[i]!, caption: 'base' },
    { pixels: pictures.adapted[i]!, caption: 'adapted' },
  ]);
  await writeRunFile(path.join(f.run.path, 'samples/sheet.png'), await contactSheet(tiles, f.side, 6));
}

export async function finishRun(f: Finish): Promise<void> {
  const { config: c, model, data, clock, run, io } = f;
  const others = await Promise.all(c.compare.map(readComparison));

  const baseHash = await model.base.hash();
  const fileOf = ({ adapters, step }: Final) => adapterFileOf(adapters, model.linears, step, c, baseHash, f.metrics);
  const file = fileOf(f.final);
  await writeAdapter(path.join(run.path, 'adapter.safetensors'), file);
  if (f.other) await writeAdapter(path.join(run.path, `${f.other.name}.safetensors`), fileOf(f.other));
  // everything below sees the adapter as other programs will read it
  const adapters = adaptersFromFile(file, model.linears);
  if (c.merged) await writeMerged(path.join(run.path, 'merged'), model.base, file);

  const { chosen, base, adapted, real } = await drawPictures(f, adapters);
  const shown = chosen.slice(0, c.samples);
  await writePictures(f, shown, { real, base, adapted });

  const told = c.obedience > 0 ? chosen.flatMap((p) => (p.findings ? [p.findings] : [])) : [];
  const settings = { side: f.side, method: c.method, parameters: parameters(file), guidance: c.guidance };
  const obeyed =
    told.length > 0 ? clock.sync('detectors', () => judgePictures(told, { base, adapted }, settings)) : undefined;
  if (obeyed) await writeRunFile(path.join(run.path, 'obedience.json'), `${JSON.stringify(obeyed.table, null, 1)}\n`);
  const memorisation =
    chosen.length >= 4
      ? await clock.time('nearest pictures', () => nearestPictures(data.train, real, adapted, f.side))
      : undefined;

  const summary = await clock.time('report', () =>
    summarise(f, {
      file,
      adapters,
      shown,
      others,
      ...(obeyed ? { obeyed } : {}),
      ...(memorisation ? { memorisation } : {}),
    }),
  );
  await clock.time('report', () => writeReport(summary, run.path));

  // the last words on the terminal
  const rankOf = new Map([...file.modules].map(([p, m]) => [p, m.rank]));
  print(io, textRankMaps(rankOf, io.stdout.columns ?? 100));
  const total = [...rankOf.values()].reduce((n, rank) => n + rank, 0);
  const which =
    f.final.name === 'best' ? `best validated step, ${f.final.step} of ${f.steps}` : `last step, ${f.steps}`;
  print(io, `adapter of the ${which}: total rank ${total} on ${rankOf.size} modules, ${parameters(file)} parameters`);
  const { best, baseline } = f.progress;
  if (best && baseline)
    print(
      io,
      `validation loss ${best.loss.toFixed(5)} at step ${best.step} (untouched base ${baseline.loss.toFixed(5)})`,
    );
  for (const row of obeyed?.table.rows ?? [])
    print(io, `  ${row.method.padEnd(14)} ${row.scores.map((s) => `${s.question} ${s.right}/${s.n}`).join(', ')}`);
  print(io, `report ${path.join(run.path, 'report.html')}`);
}
