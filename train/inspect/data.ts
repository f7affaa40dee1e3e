/** A data folder: what would be trained on, what was left out, and what a caption loses. */

import path from 'node:path';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import { openBase } from '../../models/io/base.ts';
import { printable } from '../../models/io/error.ts';
import { readTokenizer } from '../../models/io/tokenizer-files.ts';
import { SD15_TEXT_ENCODER } from '../../models/sd15.ts';
import { commas, printFacts, table } from '../cli/columns.ts';
import { type Io, print } from '../cli/command.ts';
import { type Dataset, loadDataset, pictureOf, usedBits } from '../data/dataset.ts';
import { LAYOUTS } from '../data/layouts/index.ts';
import { contactSheet, type Tile } from '../data/pictures/image-write.ts';
import { trainingPixels } from '../data/pictures/training-pixels.ts';
import {
  acrossFolders,
  dataHash,
  duplicatePictures,
  findLeaks,
  parseRatios,
  type Ratios,
  SPLITS,
  splitRecords,
} from '../data/split.ts';
import { tokenizerOf } from '../model/model.ts';
import { SMALL_BASE } from '../model/paths.ts';
import { writeRunFile } from '../run/atomic.ts';

export type DataView = {
  /** Its tokenizer counts the ids. Default: CLIP's. */
  readonly base?: string;
  readonly layout?: string;
  readonly captionColumn?: string;
  readonly skipUnreadable?: boolean;
  /** Where a sheet of the pictures after crop goes. */
  readonly sheet?: string;
  /** As for training. */
  readonly stretch?: boolean;
  /** As for training: `80/10/10`. */
  readonly split: string;
  readonly seed: number;
};

async function tokenizerFor(base: string | undefined): Promise<Tokenizer> {
  if (base !== undefined) return (await tokenizerOf(await openBase(base))).tokenizer;
  const { vocab_size, max_position_embeddings } = SD15_TEXT_ENCODER as Record<string, number>;
  return (await readTokenizer(path.join(SMALL_BASE, 'tokenizer'), { vocab_size, max_position_embeddings })).tokenizer;
}

const middle = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** `64 … 4020, median 512`, or the one value that all have. */
function spread(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return low === high ? commas(low) : `${commas(low)} … ${commas(high)}, median ${commas(middle(values))}`;
}

/** How often each value is there, most frequent first: `grey 130, colour 8`. */
function tally(values: readonly string[], limit = 12): string {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const sorted = [...counts].sort(([, a], [, b]) => b - a);
  const shown = sorted.slice(0, limit).map(([value, n]) => `${printable(value, 60)} ${commas(n)}`);
  return [...shown, ...(sorted.length > limit ? [`${sorted.length - limit} others`] : [])].join(', ');
}

/** The brightest value of all pictures, how many are darker than half of white, and how many bits those of 16 use. */
function rangeOf({ records }: Dataset): string {
  const share = ({ picture: p }: Dataset['records'][number]) => p.brightest / (2 ** p.depth - 1);
  const dark = records.filter((record) => share(record) < 0.5).length;
  const brightest = `brightest pixel ${(100 * Math.max(...records.map(share))).toFixed(0)}% of white`;
  const bits = usedBits(records);
  const few =
    bits === undefined ? '' : `; those of 16 bits use ${bits}, train --stretch makes ${commas(2 ** bits - 1)} white`;
  return dark === 0
    ? brightest
    : `${brightest}; ${commas(dark)} pictures have none above half of white, they are dark${few}`;
}

const SHEET_PICTURES = 48;
const SHEET_SIDE = 128;

/** The first pictures as training sees them. */
async function writeSheet(file: string, { records }: Dataset, stretch: boolean, io: Io): Promise<void> {
  const bits = stretch ? usedBits(records) : undefined;
  const tiles: Tile[] = [];
  for (const record of records.slice(0, SHEET_PICTURES)) {
    const pixels = trainingPixels(await pictureOf(record), SHEET_SIDE, bits === undefined ? {} : { bits });
    tiles.push({ pixels, caption: `${path.posix.basename(record.file)}: ${record.text}` });
  }
  await writeRunFile(file, await contactSheet(tiles, SHEET_SIDE, 8, 3));
  print(io, `${printable(file)}: ${tiles.length} of ${commas(records.length)} pictures, scaled and cropped`);
}

function captionFacts({ records }: Dataset, tokenizer: Tokenizer): readonly (readonly [string, string | undefined])[] {
  const encoded = records.map(({ text }) => tokenizer.encode(text));
  const cut = encoded.filter((e) => e.cut).length;
  const distinct = new Set(records.map(({ text }) => text)).size;
  const limit = tokenizer.config.maxLength;
  const longest = encoded.reduce((most, { length }) => Math.max(most, length), 0);
  const chunks = Math.ceil((longest - 2) / (limit - 2));
  const remedy = cut > 0 ? `; none with --caption-chunks ${chunks}` : '';
  return [
    ['captions', `${commas(distinct)} different, ${spread(encoded.map(({ length }) => length))} ids`],
    [
      'cut',
      `${commas(cut)} of ${commas(records.length)} captions are longer than ${limit} ids and would be cut${remedy}`,
    ],
  ];
}

function printSplit({ records }: Dataset, view: DataView, ratios: Ratios, io: Io): void {
  const parts = splitRecords(records, ratios, view.seed);
  const rows = SPLITS.filter((name) => parts[name].length > 0).map((name) => {
    const patients = new Set(parts[name].flatMap(({ patient }) => (patient === undefined ? [] : [patient]))).size;
    return [
      `  ${name}`,
      commas(parts[name].length),
      `${((100 * parts[name].length) / records.length).toFixed(1)}%`,
      patients > 0 ? `${commas(patients)} patient${patients === 1 ? '' : 's'}` : '',
    ];
  });
  print(io, `  split ${view.split}, seed ${view.seed} (no patient or picture in two parts)`);
  for (const line of table(rows, [1, 2])) print(io, `  ${line}`);
  for (const leak of findLeaks(parts)) print(io, `  LEAK: ${leak.kind} in ${leak.splits.join(' and ')}`);
}

const SHOWN = 5;

/** First few of a list with their number, for things a person should look at. */
function printSome(io: Io, heading: string, items: readonly string[]): void {
  if (items.length === 0) return;
  print(io, `  ${heading}: ${commas(items.length)}`);
  for (const item of items.slice(0, SHOWN)) print(io, `    ${printable(item, 200)}`);
  if (items.length > SHOWN) print(io, `    … and ${commas(items.length - SHOWN)} more`);
}

/**
 * Reads every pair and decodes every picture of a data folder, and prints what is in it.
 * @throws FileError (one line) at the first thing that training would stumble over
 */
export async function inspectData(location: string, view: DataView, io: Io): Promise<void> {
  const ratios = parseRatios(view.split);
  const tokenizer = await tokenizerFor(view.base);
  let shown = performance.now();
  const dataset = await loadDataset(location, {
    ...(view.layout === undefined ? {} : { layout: view.layout }),
    ...(view.captionColumn === undefined ? {} : { captionColumn: view.captionColumn }),
    skipUnreadable: view.skipUnreadable === true,
    seed: view.seed,
    onProgress: (done, total) => {
      if (performance.now() - shown < 5000) return;
      shown = performance.now();
      print(io, `… ${commas(done)} of ${commas(total)} pictures read`);
    },
  });
  const { records, skipped, warnings } = dataset;
  const patients = new Set(records.flatMap(({ patient }) => (patient === undefined ? [] : [patient]))).size;
  const labels = records.flatMap(({ label }) => (label === undefined ? [] : [label]));
  const duplicates = duplicatePictures(records);
  const turned = records.filter(({ picture }) => picture.turned).length;
  printFacts(io, `data ${printable(location)}`, [
    ['layout', dataset.layout],
    ['prompt', LAYOUTS.find(({ name }) => name === dataset.layout)?.says],
    ['pairs', commas(records.length)],
    ['width', spread(records.map(({ picture }) => picture.width))],
    ['height', spread(records.map(({ picture }) => picture.height))],
    ['pictures', tally(records.map(({ picture: p }) => `${p.channels === 1 ? 'grey' : 'colour'} ${p.depth} bit`))],
    ['range', rangeOf(dataset)],
    [
      'turned',
      turned > 0 ? `${commas(turned)} lay on their side or mirrored, with a mark that was followed` : undefined,
    ],
    ['duplicates', acrossFolders(duplicates)],
    ['patients', patients > 0 ? commas(patients) : 'not told: every picture counts as a patient of its own'],
    ['classes', labels.length > 0 ? tally(labels) : undefined],
    ...captionFacts(dataset, tokenizer),
    ['SHA-256', dataHash(records)],
  ]);
  const limit = tokenizer.config.maxLength;
  printSome(
    io,
    `captions cut at ${limit} ids`,
    records.filter(({ text }) => tokenizer.encode(text).cut).map(({ file, text }) => `${file}: ${text}`),
  );
  printSome(
    io,
    'pictures that are there several times',
    duplicates.map((group) => group.map(({ file }) => file).join(' = ')),
  );
  printSome(
    io,
    'left out',
    skipped.map(({ file, reason }) => `${file}: ${reason}`),
  );
  printSome(io, 'warnings', warnings);
  printSplit(dataset, view, ratios, io);
  if (view.sheet !== undefined) await writeSheet(view.sheet, dataset, view.stretch === true, io);
}
