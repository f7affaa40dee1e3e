/**
 * npm run evaluate: how far two sets of pictures are apart, by every metric of `metrics/sets/`, on one page with intervals,
 * floors, the pictures, and what may not be concluded.
 */
import path from 'node:path';
import { Option } from 'commander';
import { TAPS, type TapSize } from '../models/inception/index.ts';
import { FileError } from '../models/io/error.ts';
import { hostKey } from '../selora/adapter.ts';
import { table } from './cli/columns.ts';
import {
  type BackendOptions,
  command,
  type Io,
  openChosen,
  parseArgs,
  print,
  runMain,
  wholeNumber,
  withBackend,
} from './cli/command.ts';
import { featuresOf } from './evaluate/cache.ts';
import { type Clip, clipEmbedders, textItem } from './evaluate/clip.ts';
import { type Extractor, inceptionExtractor, thumbnails } from './evaluate/features.ts';
import { judges, LEAST_TOLD, type Told } from './evaluate/judge.ts';
import { evaluationPage } from './evaluate/page.ts';
import { greyOf, type Loaded, loadPicture, type SetFiles, setFiles } from './evaluate/pictures.ts';
import { textsOf } from './evaluate/texts.ts';
import { SET_METRICS } from './metrics/sets/index.ts';
import type { Found, PictureSet, SetMetric, Sets, TextPairs } from './metrics/sets/metric.ts';
import { writeRunFile } from './run/atomic.ts';
import { counted, number } from './words/format.ts';

type Options = BackendOptions & {
  readonly real: string;
  readonly fake: string;
  readonly inception?: string;
  readonly dims: string;
  readonly clip?: string;
  readonly judge?: true;
  readonly cache?: string;
  readonly seed: number;
  readonly out: string;
};

/** fewer pictures than this in a set tell nothing */
const LEAST = 4;

const program = (io: Io) =>
  withBackend(
    command(
      'evaluate',
      'Compares two sets of pictures: FID, KID, precision and recall, diversity, copies, CLIP score; one page.',
      [
        '--real films --fake runs/first',
        '--real films --fake drawn --inception inception.safetensors --dims 64',
        '--real films --fake runs/first --clip clip-vit-base-patch32',
        '--real films --fake runs/first --judge',
      ],
      io,
    )
      .requiredOption('--real <dir>', 'folder of real pictures (with those a model was trained on, to find copies)')
      .requiredOption('--fake <dir>', "folder of drawn pictures, or a run's folder")
      .option(
        '--inception <file>',
        'weights of Inception (pt_inception-2015-12-05 as safetensors); without: thumbnails',
      )
      .addOption(new Option('--dims <n>', 'features of Inception').choices(TAPS.map(String)).default('2048'))
      .option(
        '--clip <dir>',
        "CLIP as transformers' CLIPModel: config.json, safetensors, tokenizer, preprocessor_config.json; scores how pictures go with their texts (a run's reports, or a folder's captions, as train reads them)",
      )
      .option(
        '--judge',
        'a small network learns from pictures which words stand in their reports: from real ones to read fakes, from fakes to read real ones',
      )
      .option('--cache <dir>', 'keeps features by content there, for the next time')
      .option('--seed <n>', 'of resamples and drawn pairs', wholeNumber(0, Number.MAX_SAFE_INTEGER), 1)
      .option('--out <file>', 'the page', 'evaluation.html'),
  );

/** CLIP's vectors of the pictures that have a text. */
async function textPairs(
  clip: Clip,
  pictures: readonly Loaded[],
  texts: readonly (string | undefined)[],
  how: Parameters<typeof featuresOf>[2],
): Promise<TextPairs> {
  const pairs = toldOf(pictures, texts);
  const seen = await featuresOf(
    pairs.map((p) => p.picture),
    clip.pictures,
    how,
  );
  const read = await featuresOf(
    pairs.map((p) => textItem(p.text)),
    clip.texts,
    how,
  );
  return {
    texts: pairs.map((p) => p.text),
    vectors: { pictures: seen, texts: read },
    without: pictures.length - pairs.length,
    cut: pairs.filter((p) => clip.cut(p.text)).length,
  };
}

/** Pictures that have a text, with it. */
const toldOf = (pictures: readonly Loaded[], texts: readonly (string | undefined)[]): readonly Told[] =>
  pictures.flatMap((picture, i) => (texts[i] === undefined ? [] : [{ picture, text: texts[i] }]));

/** Texts of real pictures, or a line that says why there are none. */
async function realTexts(
  folder: string,
  files: SetFiles,
): Promise<{ readonly real?: readonly (string | undefined)[]; readonly note?: string }> {
  try {
    return { real: await textsOf(folder, files) };
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    const why = error.message.split('; looked for')[0];
    return { note: `CLIP score stands without that of real pictures, whose texts were not found: ${why}.` };
  }
}

/** Every metric of two sets that have enough pictures, and what none of them may be taken for. */
export function evaluateSets(sets: Sets, extractor: Pick<Extractor, 'comparable'>) {
  const [n, m] = [sets.real.features.length, sets.fake.features.length];
  const results: (SetMetric & Found)[] = [];
  const cautions: string[] = [];
  for (const metric of SET_METRICS) {
    if (Math.min(n, m) < metric.least) {
      cautions.push(`${metric.title} was left out: it needs ${metric.least} pictures in each set.`);
      continue;
    }
    const found = metric.compute(sets);
    results.push({ ...metric, ...found });
    cautions.push(...(found.cautions ?? []));
  }
  if (!extractor.comparable)
    cautions.unshift(
      'Without the weights of Inception the features are thumbnails: layout and brightness, no detail. None of the numbers compares with a publication.',
    );
  if (Math.min(n, m) < 100)
    cautions.push(
      `With ${m} fakes and ${n} reals differences between methods must be large to be seen: look at the intervals first.`,
    );
  cautions.push(
    'These metrics see pictures alone. Whether a picture shows what its report says is another question (obedience, in a run’s own page).',
    'Inception knows photographs of the world, not films: what matters to a reader of films may be invisible to it.',
  );
  return { results, cautions };
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const [real, fake] = [await setFiles(o.real, LEAST), await setFiles(o.fake, LEAST)];
  // a set without texts is told before anything is computed; real pictures may do without
  const said = o.judge ? { real: await textsOf(o.real, real) } : undefined;
  const texts =
    o.clip === undefined && !o.judge
      ? undefined
      : { fake: await textsOf(o.fake, fake), ...(said ?? (await realTexts(o.real, real))) };
  for (const [name, all] of said && texts
    ? ([
        ['real', said.real],
        ['fake', texts.fake],
      ] as const)
    : []) {
    const told = all.filter((text) => text !== undefined).length;
    if (told < LEAST_TOLD)
      throw new FileError(o[name], 'texts', `${told} pictures have one, expected ${LEAST_TOLD} or more for --judge`);
  }
  const read = async (files: readonly string[]) => {
    const out: Loaded[] = [];
    for (const file of files) {
      io.signal.throwIfAborted();
      out.push(await loadPicture(file));
    }
    return out;
  };
  const backend = o.inception === undefined && o.clip === undefined && !o.judge ? undefined : await openChosen(o);
  try {
    const extractor =
      o.inception === undefined
        ? thumbnails
        : await inceptionExtractor(o.inception, Number(o.dims) as TapSize, backend!);
    const clip = o.clip === undefined ? undefined : await clipEmbedders(o.clip, backend!);
    const pictures = { real: await read(real.files), fake: await read(fake.files), auto: await read(fake.autoencoder) };
    print(io, `${counted(pictures.fake.length, 'fake picture')}, ${counted(pictures.real.length, 'real picture')}`);
    print(io, `features: ${extractor.name}`);
    if (clip) print(io, `texts: ${clip.name}`);
    const how = { folder: o.cache, say: (line: string) => void io.stderr.write(`${line}\n`), signal: io.signal };
    const set = async (
      name: string,
      of: readonly Loaded[],
      said?: readonly (string | undefined)[],
    ): Promise<PictureSet> => ({
      name,
      features: await featuresOf(of, extractor, how),
      grey: of.map(greyOf),
      ...(clip && said ? { pairs: await textPairs(clip, of, said, how) } : {}),
    });
    const sets: Sets = {
      real: await set('real', pictures.real, texts?.real),
      fake: await set('fake', pictures.fake, texts?.fake),
      ...(pictures.auto.length > 0 ? { autoencoder: await set('autoencoder', pictures.auto) } : {}),
      ...(said && texts
        ? {
            judged: await judges(toldOf(pictures.real, said.real), toldOf(pictures.fake, texts.fake), {
              ...how,
              backend: backend!,
              key: hostKey(o.seed),
            }),
          }
        : {}),
      key: hostKey(o.seed),
    };
    const { results, cautions } = evaluateSets(sets, extractor);
    if (texts && 'note' in texts && texts.note) cautions.push(texts.note);
    const name = (folder: string) => path.basename(path.resolve(folder));
    const page = await evaluationPage({
      real: { name: name(o.real), pictures: pictures.real },
      fake: { name: name(o.fake), pictures: pictures.fake },
      extractor,
      ...(clip ? { clip: clip.name } : {}),
      results,
      cautions,
    });
    await writeRunFile(o.out, page);
    const rows = results.flatMap(({ readings }) =>
      readings.flatMap(({ label, value, interval, floors = [] }) => [
        [label, number(value, 4), interval ? `${number(interval[0])} to ${number(interval[1])}` : ''],
        ...floors.map((f) => [`  ${f.label}`, number(f.value, 4), '']),
      ]),
    );
    for (const line of table(rows, [1])) print(io, line);
    print(io);
    for (const line of cautions) print(io, `- ${line}`);
    print(io, `page ${o.out}`);
  } finally {
    await backend?.close();
  }
}
await runMain(import.meta, main);
