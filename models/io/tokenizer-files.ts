/** The tokenizer's files in a model folder: `vocab.json`, `merges.txt`, `tokenizer_config.json`. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { parseConfig, type TokenizerConfig, tokenizerSchema } from '../config.ts';
import { FileError, quoted } from './error.ts';
import { decodeText, parseJson, readBytes } from './json.ts';

export type TokenizerFiles = {
  /** Token → id. */
  readonly vocab: ReadonlyMap<string, number>;
  /** Pairs in the order of their rank. */
  readonly merges: readonly (readonly [string, string])[];
  readonly config: TokenizerConfig;
  /** The files as they are, by name, for writing the model again. */
  readonly raw: ReadonlyMap<string, Uint8Array>;
};

const MAX_BYTES = 32 << 20;

/**
 * Reads and checks the tokenizer: ids unique and below `vocabSize`, every merge of two parts with its result known.
 * @throws FileError naming file and line or token
 */
export async function readTokenizer(folder: string, vocabSize: number): Promise<TokenizerFiles> {
  const raw = new Map<string, Uint8Array>();
  const read = async (name: string) => {
    const bytes = await readBytes(path.join(folder, name), MAX_BYTES);
    raw.set(name, bytes);
    return decodeText(bytes, path.join(folder, name));
  };
  const vocabFile = path.join(folder, 'vocab.json');
  const vocab = parseVocab(await read('vocab.json'), vocabFile, vocabSize);
  const merges = parseMerges(await read('merges.txt'), path.join(folder, 'merges.txt'), vocab);
  const configFile = path.join(folder, 'tokenizer_config.json');
  const config = parseConfig(tokenizerSchema, parseJson(await read('tokenizer_config.json'), configFile), configFile);
  const special = 'special_tokens_map.json'; // says the same again; kept for the loaders that want it
  if (await isFile(path.join(folder, special))) parseJson(await read(special), path.join(folder, special));
  for (const token of [config.bos_token, config.eos_token, config.pad_token]) {
    if (!vocab.has(token)) throw new FileError(vocabFile, quoted(token), 'the special token is missing');
  }
  return { vocab, merges, config, raw };
}

const isFile = (file: string) =>
  stat(file).then(
    (info) => info.isFile(),
    () => false,
  );

/** `vocab.json`: an object of token → id. */
export function parseVocab(text: string, file: string, vocabSize: number): ReadonlyMap<string, number> {
  const json = parseJson(text, file);
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new FileError(file, '', 'must be a JSON object of token → id');
  }
  const vocab = new Map<string, number>();
  const used = new Map<number, string>();
  for (const [token, id] of Object.entries(json)) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocabSize) {
      const shown = JSON.stringify(id).slice(0, 40);
      throw new FileError(file, quoted(token), `id is ${shown}, expected an integer below vocab_size ${vocabSize}`);
    }
    const other = used.get(id);
    if (other !== undefined) throw new FileError(file, quoted(token), `has the same id ${id} as ${quoted(other)}`);
    used.set(id, token);
    vocab.set(token, id);
  }
  return vocab;
}

/** `merges.txt`: `#version` line, then one pair per line. */
export function parseMerges(
  text: string,
  file: string,
  vocab: ReadonlyMap<string, number>,
): readonly (readonly [string, string])[] {
  const merges: (readonly [string, string])[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line === '' || (index === 0 && line.startsWith('#version'))) continue;
    const [first, second, ...rest] = line.split(' ');
    const where = `line ${index + 1}`;
    if (!first || !second || rest.length > 0) {
      throw new FileError(file, where, `${quoted(line, 60)} is not a merge: expected two parts with one blank between`);
    }
    if (!vocab.has(first + second)) throw new FileError(file, where, `${quoted(first + second)} is not in vocab.json`);
    merges.push([first, second]);
  }
  return merges;
}
