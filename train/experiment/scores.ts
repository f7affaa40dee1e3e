/**
 * FID, KID and CLIP score of the pictures that runs drew for held-out reports: the columns of the paper's tables 1, 2, 3, 5 and 6.
 * The networks are those of `npm run evaluate`, from weights that a person supplies; features are kept by content.
 */
import path from 'node:path';
import { z } from 'zod';
import { type Backend, openBackend } from '../../core/index.ts';
import { TAPS } from '../../models/inception/index.ts';
import type { RunConfig } from '../config/config.ts';
import { featuresOf } from '../evaluate/cache.ts';
import { type Clip, clipEmbedders, textItem } from '../evaluate/clip.ts';
import { type Extractor, inceptionExtractor } from '../evaluate/features.ts';
import { type Loaded, loadPicture, setFiles } from '../evaluate/pictures.ts';
import { textsOf } from '../evaluate/texts.ts';
import { clipScore } from '../metrics/measures/clip-score.ts';
import { type Features, frechet, momentsOf } from '../metrics/measures/frechet.ts';
import { kernelDistance, kernelsOf } from '../metrics/measures/kernel.ts';
import type { Measure } from './measures.ts';
import type { State } from './state.ts';

/** What an experiment's file says of them. */
export const scoresSchema = z
  .strictObject({
    /** folder of real pictures; the run's own of the same reports unless told */
    real: z.string().min(1).optional(),
    /** weights of Inception, as safetensors */
    inception: z.string().min(1).optional(),
    /** features of Inception, one FID each; KID is of the first */
    dims: z
      .array(z.union(TAPS.map((n) => z.literal(n))))
      .min(1)
      .max(TAPS.length)
      .default([2048]),
    /** folder of a CLIPModel */
    clip: z.string().min(1).optional(),
  })
  .refine((s) => s.inception !== undefined || s.clip !== undefined, 'expected inception, clip, or both');
export type ScoresSpec = z.output<typeof scoresSchema>;

/** Values by run folder, then by measure. */
export type Scores = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** The measures a file asks for. */
export const scoreMeasures = (spec: ScoresSpec | undefined, scores: Scores): readonly Measure[] => {
  const measure = (id: string, label: string, better: Measure['better']): Measure => ({
    id,
    label,
    ...(better ? { better } : {}),
    of: (run) => scores.get(run.folder)?.get(id),
  });
  return [
    ...(spec?.inception === undefined
      ? []
      : [
          ...spec.dims.map((n) => measure(`fid-${n}`, `FID of ${n} features`, 'lower')),
          measure('kid', `KID of ${spec.dims[0]} features`, 'lower'),
        ]),
    ...(spec?.clip === undefined ? [] : [measure('clip', 'CLIP score', 'higher')]),
    ...(spec === undefined ? [] : [measure('drawn', 'pictures scored', undefined)]),
  ];
};

type Networks = { readonly extractors: readonly Extractor[]; readonly clip?: Clip };
async function open(spec: ScoresSpec, backend: Backend): Promise<Networks> {
  const extractors: Extractor[] = [];
  if (spec.inception !== undefined)
    for (const size of spec.dims) extractors.push(await inceptionExtractor(spec.inception, size, backend));
  return { extractors, ...(spec.clip === undefined ? {} : { clip: await clipEmbedders(spec.clip, backend) }) };
}

/** fewer pictures than this have no distance */
const LEAST = 4;

/**
 * Opens networks and real pictures and closes them again, so that what is wrong with them is told before days of training.
 * @throws FileError naming the file and what is wrong with it
 */
export async function checkScores(spec: ScoresSpec, backendName: RunConfig['backend']): Promise<void> {
  if (spec.real !== undefined) await setFiles(spec.real, LEAST);
  const backend = await openBackend(backendName);
  await open(spec, backend).finally(() => backend.close());
}

/**
 * Scores of every finished run that drew enough pictures. FID = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), KID unbiased, CLIP score
 * the mean over pictures of 100·max(cos, 0) as torchmetrics has it.
 */
export async function scoresOf(
  spec: ScoresSpec,
  states: readonly State[],
  folder: string,
  backendName: RunConfig['backend'],
  how: { readonly say: (line: string) => void; readonly signal: AbortSignal },
): Promise<Scores> {
  const backend = await openBackend(backendName);
  try {
    const { extractors, clip } = await open(spec, backend);
    const cached = { ...how, folder: path.join(folder, 'features') };
    const read = async (files: readonly string[]): Promise<readonly Loaded[]> => {
      const out: Loaded[] = [];
      for (const file of files) {
        how.signal.throwIfAborted();
        out.push(await loadPicture(file));
      }
      return out;
    };
    const everyones = spec.real === undefined ? undefined : await read((await setFiles(spec.real, LEAST)).files);
    const features = async (extractor: Extractor, of: readonly Loaded[]) => featuresOf(of, extractor, cached);
    // the same for all runs
    const shared = new Map<Extractor, Features>();
    if (everyones) for (const x of extractors) shared.set(x, await features(x, everyones));
    const out = new Map<string, ReadonlyMap<string, number>>();
    for (const s of states) {
      if (s.state !== 'done') continue;
      const at = s.record.folder;
      const set = await setFiles(at, 0);
      if (set.files.length < LEAST) continue;
      const [fake, real] = [await read(set.files), everyones ?? (await read(set.real))];
      const values = new Map<string, number>([['drawn', fake.length]]);
      for (const [i, extractor] of extractors.entries()) {
        if (real.length < LEAST) break;
        const a = shared.get(extractor) ?? (await features(extractor, real));
        const b = await features(extractor, fake);
        values.set(`fid-${extractor.dims}`, frechet(momentsOf(a), momentsOf(b)));
        if (i === 0) values.set('kid', kernelDistance(kernelsOf(a, b)));
      }
      if (clip) {
        const texts = await textsOf(at, set);
        const pairs = fake.flatMap((picture, i) => (texts[i] === undefined ? [] : [{ picture, text: texts[i] }]));
        const seen = await featuresOf(pairs.map((p) => p.picture), clip.pictures, cached); // biome-ignore format: one line
        const said = await featuresOf(pairs.map((p) => textItem(p.text)), clip.texts, cached); // biome-ignore format: one line
        values.set('clip', clipScore(seen, said).hundred);
      }
      out.set(at, values);
    }
    return out;
  } finally {
    await backend.close();
  }
}
