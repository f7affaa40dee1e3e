/** The texts that pictures of a set belong to: a run's samples, or a data folder's captions. */
import { realpath } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { FileError } from '../../models/io/error.ts';
import { readJson } from '../../models/io/json.ts';
import { loadRecords } from '../data/layouts/index.ts';
import { SAMPLES_FILE } from '../run/read.ts';
import { sampleSchema } from '../run/record.ts';
import type { SetFiles } from './pictures.ts';

const MAX_BYTES = 64 * 2 ** 20;

/**
 * The text of each picture file of a set, undefined where it has none.
 * @throws FileError where the folder has no texts at all, or what holds them is broken
 */
export async function textsOf(folder: string, { files, run }: SetFiles): Promise<readonly (string | undefined)[]> {
  const texts = run ? await samplesTexts(folder) : await captions(folder);
  const found = await Promise.all(files.map(async (file) => texts.get(await realpath(file))));
  if (found.every((text) => text === undefined))
    throw new FileError(folder, 'texts', 'none of its pictures has a text');
  return found;
}

async function samplesTexts(folder: string): Promise<ReadonlyMap<string, string>> {
  const file = path.join(folder, SAMPLES_FILE);
  const read = z.array(sampleSchema).safeParse(await readJson(file, MAX_BYTES));
  if (!read.success) throw new FileError(file, read.error.issues[0]!.path.join('.'), read.error.issues[0]!.message);
  const root = await realpath(folder);
  return new Map(read.data.flatMap(({ report, pictures }) => pictures.map((p) => [path.join(root, p.file), report])));
}

async function captions(folder: string): Promise<ReadonlyMap<string, string>> {
  const { records } = await loadRecords(folder);
  return new Map(records.filter((r) => r.encoded === undefined).map(({ image, text }) => [image, text]));
}
