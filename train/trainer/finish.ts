/** The end of a run: adapter files, pictures of held-out reports, detectors, and the report. */
import path from 'node:path';
import type { Backend } from '../../core/index.ts';
import { READERS } from '../../models/io/adapter-readers.ts';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import { type Io, print } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { contactSheet, encodePng } from '../data/pictures/image-write.ts';
import { METRICS } from '../metrics/index.ts';
import { lacking, type Material } from '../metrics/metric.ts';
import { adaptersFromFile } from '../model/adapters.ts';
import type { Encoded } from '../model/encode.ts';
import type { LoadedModel } from '../model/model.ts';
import type { LoadedAdapters } from '../model/pipeline.ts';
import { reconstruct } from '../model/reconstruct.ts';
import { adaptedPipeline, createGenerator, pictureOptions } from '../model/sample.ts';
import { makeRunFolder, writeRunFile } from '../run/atomic.ts';
import type { RunFolder } from '../run/folder.ts';
import type { PhaseClock } from '../run/phases.ts';
import { resultFile, SAMPLES_FILE } from '../run/read.ts';
import type { Sample } from '../run/record.ts';
import { SHOWN } from '../run/record.ts';
import type { HostModules } from '../run/tensors.ts';
import { textRankMaps } from '../words/progress.ts';
import { parameters, writeLycoris, writeMerged } from './adapter-file.ts';
import { adapterFileOf } from './adapter-form.ts';
import { firstFacts, moduleFacts, writeFacts } from './facts.ts';
import type { RunData, RunPair } from './pairs.ts';
import type { Progress } from './standing.ts';

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

/** The adapter in its method's own form. */
const LYCORIS = 'lycoris.safetensors';

/** Adapted pictures of a shown report, each from noise of its own. */
const TIMES = 3;

/** Real, reconstructed, base and adapted pictures of the first held-out reports; base and adapted start from the same noise. */
async function drawPictures(f: Finish, adapters: LoadedAdapters) {
  const { config: c, data, clock } = f;
  const { pipeline } = f.model;
  const held: readonly RunPair[] = [...data.test, ...data.validation];
  const chosen = held.slice(0, data.train[0]?.findings ? Math.max(c.samples, c.obedience) : c.samples);
  const generate = createGenerator(f.backend, pipeline.configs);
  const texts = chosen.map((p) => p.text);
  const options = pictureOptions(c, f.side, texts.length);
  const base = await clock.time('sample pictures', () => generate(pipeline, texts, options));
  const model = adaptedPipeline(pipeline, adapters, f.backend);
  const adapted = [await clock.time('sample pictures', () => generate(model, texts, options))];
  const shown = texts.slice(0, c.samples);
  for (let again = 1; again < TIMES && shown.length > 0; again++)
    adapted.push(
      await clock.time('sample pictures', () => generate(model, shown, pictureOptions(c, f.side, shown.length, again))),
    );
  const real = await Promise.all(chosen.map((p) => p.pixels()));
  const autoencoder = await clock.time('reconstruct pictures', () => reconstruct(f.backend, pipeline, real, f.side));
  return { chosen, real, autoencoder, base, adapted };
}
type Drawn = Awaited<ReturnType<typeof drawPictures>>;

/** The pictures of the shown reports as files, with what the page needs to show them. */
async function writePictures(f: Finish, drawn: Drawn): Promise<void> {
  const shown = drawn.chosen.slice(0, f.config.samples);
  if (shown.length === 0) return;
  const [adapted, ...more] = drawn.adapted;
  const seeds = (again: number) => pictureOptions(f.config, f.side, shown.length, again).seeds;
  const columns: readonly (readonly [
    label: string,
    file: string,
    pictures: readonly Float32Array[],
    seeds?: readonly number[],
  ])[] = [
    ['real', 'real', drawn.real],
    ['autoencoder', 'autoencoder', drawn.autoencoder],
    ['base', 'base', drawn.base, seeds(0)],
    ['adapted', 'adapted', adapted!, seeds(0)],
    ...more.map((p, i) => ['adapted', `adapted-${i + 2}`, p, seeds(i + 1)] as const),
  ];
  const samples: Sample[] = [];
  for (const [i, pair] of shown.entries()) {
    const pictures: Sample['pictures'][number][] = [];
    for (const [label, name, list, from] of columns) {
      const file = await keepPicture(f, `${String(i + 1).padStart(2, '0')}-${name}`, list[i]!);
      pictures.push({ label, file, ...(from && { seed: from[i]! }) });
    }
    samples.push({ report: pair.text, split: f.data.test.includes(pair) ? 'test' : 'validation', pictures });
  }
  await writeRunFile(path.join(f.run.path, SAMPLES_FILE), `${JSON.stringify(samples, null, 1)}\n`);
  const tiles = shown.slice(0, SHOWN).flatMap((p, i) => [
    { pixels: drawn.real[i]!, caption: `real: ${p.text}` },
    { pixels: drawn.base[i]!, caption: 'base' },
    { pixels: adapted![i]!, caption: 'adapted' },
  ]);
  await writeRunFile(path.join(f.run.path, 'samples/sheet.png'), await contactSheet(tiles, f.side, 6));
}

/** Writes `samples/NAME.png` and tells its file. */
async function keepPicture({ run, side }: Pick<Finish, 'run' | 'side'>, name: string, pixels: Float32Array) {
  const file = `samples/${name}.png`;
  await makeRunFolder(path.join(run.path, 'samples'));
  await writeRunFile(path.join(run.path, file), await encodePng(pixels, side));
  return file;
}

/** Computes every metric whose needs are met and writes its result; returns the lines for the terminal. */
async function measure(f: Finish, drawn: Drawn, size: number): Promise<readonly string[]> {
  const { config: c, data, clock } = f;
  const judged = c.obedience > 0;
  const material: Material = {
    side: f.side,
    reports: drawn.chosen.map(({ text, findings }) => ({ text, ...(judged && findings ? { findings } : {}) })),
    real: drawn.real,
    autoencoder: drawn.autoencoder,
    base: drawn.base,
    adapted: drawn.adapted[0]!,
    training: data.train,
    method: c.method,
    parameters: size,
    guidance: c.guidance,
    keep: (name, pixels) => keepPicture(f, name, pixels),
  };
  const lines: string[] = [];
  for (const metric of METRICS) {
    if (lacking(metric, material) !== undefined) continue;
    const result = await clock.time(metric.name, () => metric.compute(material));
    await writeRunFile(path.join(f.run.path, resultFile(metric.name)), `${JSON.stringify(result, null, 1)}\n`);
    lines.push(...metric.lines(result));
  }
  return lines;
}

export async function finishRun(f: Finish): Promise<void> {
  const { config: c, model, run, io } = f;
  const baseHash = await model.base.hash();
  const fileOf = ({ adapters, step }: Final) =>
    adapterFileOf(adapters, model.places, step, c, model.base, baseHash, f.metrics);
  const file = await fileOf(f.final);
  const sharing = { public: c.public };
  await writeAdapter(path.join(run.path, 'adapter.safetensors'), file, 'diffusers', sharing);
  if (f.other)
    await writeAdapter(path.join(run.path, `${f.other.name}.safetensors`), await fileOf(f.other), 'diffusers', sharing);
  const own = await writeLycoris(path.join(run.path, LYCORIS), f.final.adapters, model.places, c, model.base, sharing);
  // everything below sees the adapter as other programs will read it
  const adapters = adaptersFromFile(file, model.places);
  if (c.merged) await writeMerged(path.join(run.path, 'merged'), model.base, file, sharing);

  const drawn = await drawPictures(f, adapters);
  await writePictures(f, drawn);
  const size = parameters(f.final.adapters, c);
  const measured = await measure(f, drawn, size);
  const modules = await f.clock.time('norms', () => moduleFacts(f, file, adapters));
  await writeFacts(f, await firstFacts(f), f.progress, {
    modules,
    parameters: size,
    weights: { name: f.final.name, step: f.final.step, of: f.progress.step },
  });
  // drawing takes half as long to load as all else together: a run that ends early need not wait for it
  const { writeReport } = await import('../report/write.ts');
  await writeReport(run.path);

  // the last words on the terminal
  const rankOf = new Map([...file.modules].map(([p, m]) => [p, m.rank]));
  print(io, textRankMaps(rankOf, io.stdout.columns ?? 100));
  const total = [...rankOf.values()].reduce((n, rank) => n + rank, 0);
  const which =
    f.final.name === 'best' ? `best validated step, ${f.final.step} of ${f.steps}` : `last step, ${f.steps}`;
  print(io, `adapter of the ${which}: total rank ${total} on ${rankOf.size} modules, ${size} parameters`);
  const { best, baseline } = f.progress;
  if (best && baseline)
    print(
      io,
      `validation loss ${best.loss.toFixed(5)} at step ${best.step} (untouched base ${baseline.loss.toFixed(5)})`,
    );
  for (const line of measured) print(io, line);
  print(io, `${path.join(run.path, 'adapter.safetensors')}: for ${READERS.diffusers}`);
  print(io, `for ${READERS.kohya}: npm run resize -- --adapter ${run.path} --form kohya --out kohya.safetensors`);
  if (own) print(io, `${path.join(run.path, LYCORIS)}: the same by LyCORIS' names, for ComfyUI and LyCORIS`);
  print(io, `report ${path.join(run.path, 'report.html')}`);
}
