/**
 * npx tsx train/report/sheet.ts RUN FILE.png
 *
 * Five unseen phantoms of each finding alone, and five normal ones: the film, the autoencoder's version of it, and what the
 * run's model draws for its report (guidance and steps of the run), with what the detectors read.
 */
import path from 'node:path';
import { type Backend, openBackend, read, tensor } from '../../core/index.ts';
import { writeFileAtomic } from '../../models/io/atomic.ts';
import { print, runMain, UsageError } from '../cli/command.ts';
import { resolveConfig } from '../config/resolve.ts';
import type { Finding } from '../data/made/phantom-report.ts';
import { type Phantom, phantomAt } from '../data/made/phantoms.ts';
import { toGrey, toModelPixels } from '../data/pictures/grey.ts';
import { contactSheet, type Tile } from '../data/pictures/image-write.ts';
import { filmReader } from '../metrics/films/detectors.ts';
import { sayReading } from '../metrics/films/score.ts';
import { loadPipeline } from '../model/model.ts';
import { decodeProgram, encodeProgram } from '../model/programs.ts';
import { createGenerator, pictureOptions } from '../model/sample.ts';
import { readRun } from '../run/read.ts';

const EACH = 5;
const KINDS: readonly (Finding['kind'] | undefined)[] = [
  'opacity',
  'effusion',
  'pneumothorax',
  'cardiomegaly',
  undefined,
];

/** The first five phantoms that show this finding and no other. */
function examples(seed: number, kind: Finding['kind'] | undefined, side: number): Phantom[] {
  const found: Phantom[] = [];
  for (let index = 0; found.length < EACH; index++) {
    const one = phantomAt(seed, 'sheet', index, side);
    if (one.findings.length === (kind ? 1 : 0) && one.findings[0]?.kind === kind) found.push(one);
  }
  return found;
}

/** The sheet of the run in a folder, as a PNG. Cost: 25 pictures drawn. */
export async function sheetOf(backend: Backend, folder: string): Promise<Uint8Array> {
  const c = resolveConfig((await readRun(folder, false)).settings);
  const adapter = path.join(folder, 'adapter.safetensors');
  const { pipeline } = await loadPipeline(c.base, backend, { adapter });
  const side = c.resolution ?? 128;
  const films = KINDS.flatMap((kind) => examples(c.seed, kind, side));
  const n = films.length;
  const pixels = new Float32Array(n * side * side * 3);
  for (const [i, film] of films.entries()) pixels.set(toModelPixels(film.pixels), i * side * side * 3);
  const each = (all: Float32Array, i: number) => all.subarray((i * all.length) / n, ((i + 1) * all.length) / n);
  const { mean } = encodeProgram(backend, pipeline.configs.vae)(
    pipeline.vae,
    tensor(pixels.slice(), [n, side, side, 3]),
  );
  const kept = (await read(decodeProgram(backend, pipeline.configs.vae)(pipeline.vae, mean))) as Float32Array;
  const reports = films.map(({ report }) => report);
  const drawn = await createGenerator(backend, pipeline.configs)(pipeline, reports, pictureOptions(c, side, n));

  const look = filmReader(side);
  const readAs = (picture: ArrayLike<number>) => sayReading(look(toGrey(picture)));
  const rows = KINDS.flatMap((_, row): Tile[] => {
    const at = Array.from({ length: EACH }, (_, i) => row * EACH + i);
    return [
      ...at.map((i) => ({ pixels: each(pixels, i), caption: reports[i]! })),
      ...at.map((i) => ({ pixels: each(kept, i), caption: '' })),
      ...at.map((i) => ({ pixels: drawn[i]!, caption: readAs(drawn[i]!) })),
    ];
  });
  return contactSheet(rows, side, 3 * EACH, 3);
}

await runMain(import.meta, async ([folder, file, ...rest], io) => {
  if (folder === undefined || file === undefined || rest.length > 0)
    throw new UsageError('expected the folder of a run and a file: sheet.ts runs/first films.png');
  const backend = await openBackend('wasm');
  await writeFileAtomic(file, await sheetOf(backend, folder), { public: true });
  await backend.close();
  print(io, file);
});
