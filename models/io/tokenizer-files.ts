/**
 * The tokenizer's files in a base model's folder, read as untrusted input; what they mean is up to `models/clip`.
 * The raw bytes are kept so that the model can be written again with the very same files.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { CLIP_TOKENIZER, createTokenizer, type Tokenizer } from '../clip/tokenizer.ts';
import { parseMerges, parseTokenizerConfig, parseTokenizerJson, parseVocabulary } from '../clip/vocabulary.ts';
import type { TextEncoderConfig } from '../config.ts';
import { FileError } from './error.ts';
import { decodeText, parseJson, readBytes } from './json.ts';

export type TokenizerFiles = {
  readonly tokenizer: Tokenizer;
  /** File name → bytes. */
  readonly raw: ReadonlyMap<string, Uint8Array>;
};

const MAX_BYTES = 32 << 20;

/** Absent: CLIP's own settings. */
const CONFIG = 'tokenizer_config.json';

/** What transformers 5 writes in place of the two files of vocabulary and merges. */
const FAST = 'tokenizer.json';

/** Not needed here, but kept for the loaders that want it. */
const SPECIAL = 'special_tokens_map.json';

/**
 * Reads `vocab.json` and `merges.txt`, or `tokenizer.json` where there is nothing else, and `tokenizer_config.json`.
 * @param pad the symbol that fills up a text, in place of the one in the files
 * @throws FileError naming file and line or token, also where ids or lengths do not fit the text encoder
 */
export async function readTokenizer(
  folder: string,
  encoder: Pick<TextEncoderConfig, 'vocab_size' | 'max_position_embeddings'>,
  pad?: string,
): Promise<TokenizerFiles> {
  const file = (name: string) => path.join(folder, name);
  const raw = new Map<string, Uint8Array>();
  const fast = !(await isFile(file('vocab.json'))) && (await isFile(file(FAST)));
  for (const name of fast ? [FAST] : ['vocab.json', 'merges.txt'])
    raw.set(name, await readBytes(file(name), MAX_BYTES));
  for (const name of [CONFIG, SPECIAL])
    if (await isFile(file(name))) {
      const bytes = await readBytes(file(name), MAX_BYTES);
      raw.set(name, pad === undefined ? bytes : padded(bytes, file(name), pad));
    }
  const parsed = <T>(name: string, parse: (text: string, file: string) => T): T =>
    parse(decodeText(raw.get(name)!, file(name)), file(name));
  const { vocabulary, merges } = fast
    ? parsed(FAST, parseTokenizerJson)
    : { vocabulary: parsed('vocab.json', parseVocabulary), merges: parsed('merges.txt', parseMerges) };
  const config = raw.has(CONFIG) ? parsed(CONFIG, parseTokenizerConfig) : CLIP_TOKENIZER;
  if (raw.has(SPECIAL)) parsed(SPECIAL, parseJson);
  const named = file(fast ? FAST : 'vocab.json');
  const tokenizer = build(named, () => createTokenizer(vocabulary, merges, config));
  if (tokenizer.vocabularySize > encoder.vocab_size) {
    const problem = `ids go up to ${tokenizer.vocabularySize - 1}, but the text encoder's vocab_size is ${encoder.vocab_size}`;
    throw new FileError(named, '', problem);
  }
  if (config.maxLength > encoder.max_position_embeddings) {
    const problem = `is ${config.maxLength}, above the text encoder's max_position_embeddings ${encoder.max_position_embeddings}`;
    throw new FileError(file('tokenizer_config.json'), 'model_max_length', problem);
  }
  return { tokenizer, raw };
}

/** A file of settings with another padding. */
function padded(bytes: Uint8Array, file: string, pad: string): Uint8Array {
  const json = parseJson(decodeText(bytes, file), file);
  const settings = typeof json === 'object' && json !== null && !Array.isArray(json) ? json : {};
  return new TextEncoder().encode(`${JSON.stringify({ ...settings, pad_token: pad }, null, 2)}\n`);
}

const isFile = (file: string) =>
  stat(file).then(
    (info) => info.isFile(),
    () => false,
  );

/** The tokenizer's own complaint (a special token that is missing) as one about the file. */
function build(file: string, make: () => Tokenizer): Tokenizer {
  try {
    return make();
  } catch (error) {
    throw new FileError(
      file,
      '',
      (error instanceof Error ? error.message : String(error)).replace(/^vocab\.json: /, ''),
    );
  }
}
