/** The shipped base as files of the lab's folder: weights as they are, configurations and a default run as one JSON. */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseMerges, parseVocabulary } from '../../models/clip/vocabulary.ts';
import { decodeText } from '../../models/io/json.ts';
import { resolveConfig } from '../config/resolve.ts';
import { openBaseAt, tokenizerOf } from '../model/model.ts';
import { sideOf, targetsOf } from '../model/targets.ts';
import { findData } from '../trainer/pairs.ts';
import { BASE_FILE, type BaseFile, HELD_OUT, WEIGHT_FILES } from './machine/base.ts';
import { TOKENIZER_FILE, type TokenizerFile } from './machine/data.ts';

/** held-out reports that are shown: a batch of them */
const REPORTS = 8;

/** Writes the base of a default run into the folder. */
export async function writeBase(folder: string): Promise<void> {
  // the page grows by the paper's criterion
  const run = resolveConfig({ criterion: 'fi-ratio' });
  const base = await openBaseAt(run.base);
  const { tokenizer, raw } = await tokenizerOf(base);
  const places = targetsOf(base, run);
  const side = sideOf(base, run);
  const held = (await findData(run)).at(side)[HELD_OUT].slice(0, REPORTS);
  const ids = (text: string): number[] => [...tokenizer.encode(text, run.captionChunks).ids];
  const told: BaseFile = {
    configs: base.configs,
    run,
    side,
    places: { unet: [...places.unet], text: [...places.text] },
    pairs: held.map(({ text }) => ({ text, ids: ids(text) })),
    empty: ids(''),
    hash: await base.hash(),
  };
  await mkdir(path.join(folder, 'base'), { recursive: true });
  for (const [part, name] of Object.entries(WEIGHT_FILES)) {
    const [weight, ...more] = new Set(
      [...base.parts[part as keyof typeof WEIGHT_FILES].weights.values()].map((w) => w.file),
    );
    if (weight === undefined || more.length > 0) throw new Error(`${part}: expected its weights in one file`);
    await copyFile(weight, path.join(folder, name));
  }
  await writeFile(path.join(folder, BASE_FILE), JSON.stringify(told));
  const words: TokenizerFile = {
    vocabulary: [...parseVocabulary(textIn(raw, 'vocab.json'), 'vocab.json')],
    merges: parseMerges(textIn(raw, 'merges.txt'), 'merges.txt'),
    config: tokenizer.config,
  };
  await writeFile(path.join(folder, TOKENIZER_FILE), JSON.stringify(words));
}

const textIn = (files: ReadonlyMap<string, Uint8Array>, name: string): string => decodeText(files.get(name)!, name);
