/** Reading a `tokenizer/` folder in the transformers layout: vocab.json, merges.txt, tokenizer_config.json. */
import { open } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { CLIP_TOKENIZER, createTokenizer, type Tokenizer, type TokenizerConfig } from './tokenizer.ts';

/** SD 1.5's files have 1.0 and 0.5 MB. */
const MAX_BYTES = 64 * 2 ** 20;
/** transformers reads so many merges and no more (OpenAI's own list is longer than its vocabulary). */
const MAX_MERGES = 49152 - 256 - 2;
const MAX_ID = 2 ** 24;

/** @throws Error one line: file, what was expected. `undefined` when the file is optional and not there. */
async function readText(path: string, optional: boolean): Promise<string | undefined> {
  const name = `tokenizer/${basename(path)}`;
  const file = await open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' && optional) return undefined;
    throw new Error(`${name}: ${error.code === 'ENOENT' ? 'not found' : error.message} (${path})`);
  });
  if (!file) return undefined;
  try {
    const info = await file.stat();
    if (!info.isFile()) throw new Error(`${name}: expected a file`);
    if (info.size > MAX_BYTES) throw new Error(`${name}: ${info.size} bytes, expected at most ${MAX_BYTES}`);
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: not JSON: ${(error as Error).message}`);
  }
}

/**
 * Checks the content of vocab.json: an object of symbol → id, each id a whole number.
 * @throws Error one line naming file and symbol
 */
export function parseVocabulary(text: string, file = 'tokenizer/vocab.json'): ReadonlyMap<string, number> {
  const json = parseJson(text, file);
  if (json === null || typeof json !== 'object' || Array.isArray(json))
    throw new Error(`${file}: expected an object of symbols and ids`);
  const entries = Object.entries(json as Record<string, unknown>);
  // A loop and not zod: 49,408 entries, and one of them may be called __proto__.
  for (const [symbol, id] of entries)
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID)
      throw new Error(
        `${file}: ${JSON.stringify(symbol)}: expected a whole number from 0 to ${MAX_ID - 1}, found ${JSON.stringify(id)}`,
      );
  return new Map(entries as [string, number][]);
}

/**
 * Checks the content of merges.txt: a `#version` line, then two symbols a line, most important first.
 * @throws Error one line naming file and line
 */
export function parseMerges(text: string, file = 'tokenizer/merges.txt'): readonly (readonly [string, string])[] {
  const lines = text.trimEnd().split(/\r?\n/);
  const header = lines[0]!.startsWith('#version') ? 1 : 0;
  return lines.slice(header, header + MAX_MERGES).map((line, i) => {
    const [left, right, ...rest] = line.trim().split(/\s+/);
    if (!left || !right || rest.length > 0)
      throw new Error(
        `${file}: line ${i + header + 1}: expected two symbols to merge, found ${JSON.stringify(line.slice(0, 80))}`,
      );
    return [left, right] as const;
  });
}

/** A special token is written as its text or as a record with `content`. */
const token = z.union([z.string(), z.object({ content: z.string() }).transform((t) => t.content)]);
const configSchema = z.object({
  /** transformers writes 10³⁰ for "no limit". */
  model_max_length: z.number().min(2).optional(),
  bos_token: token.nullish(),
  eos_token: token.nullish(),
  pad_token: token.nullish(),
  unk_token: token.nullish(),
});

/** Longest encoding that is believed; larger values mean "no limit" and give CLIP's 77. */
const MAX_LENGTH = 4096;

/** Checks the content of tokenizer_config.json. @throws Error one line naming file and field */
export function parseTokenizerConfig(text: string, file = 'tokenizer/tokenizer_config.json'): TokenizerConfig {
  const result = configSchema.safeParse(parseJson(text, file));
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new Error(`${file}: ${issue.path.join('.')}: ${issue.message}`);
  }
  const { model_max_length: length, bos_token, eos_token, pad_token, unk_token } = result.data;
  return {
    maxLength: length !== undefined && length <= MAX_LENGTH ? Math.floor(length) : CLIP_TOKENIZER.maxLength,
    start: bos_token ?? CLIP_TOKENIZER.start,
    end: eos_token ?? CLIP_TOKENIZER.end,
    pad: pad_token ?? CLIP_TOKENIZER.pad,
    unknown: unk_token ?? CLIP_TOKENIZER.unknown,
  };
}

/**
 * Reads a tokenizer folder; tokenizer_config.json may be missing.
 * @throws Error one line naming the file
 * @example const { encode } = await loadTokenizer('base/tokenizer')
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const [vocabulary, merges, config] = await Promise.all([
    readText(join(folder, 'vocab.json'), false),
    readText(join(folder, 'merges.txt'), false),
    readText(join(folder, 'tokenizer_config.json'), true),
  ]);
  return createTokenizer(
    parseVocabulary(vocabulary!),
    parseMerges(merges!),
    config === undefined ? CLIP_TOKENIZER : parseTokenizerConfig(config),
  );
}
