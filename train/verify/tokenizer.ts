/** Checks the tokenizer against the strings of a golden directory (`tokenizer.json`). */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import { readTokenizer } from '../../models/io/tokenizer-files.ts';
import { type GoldenCase, readGoldenJson } from './golden.ts';

export const TOKENIZER_FILES = ['tokenizer.json'] as const;

const id = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);
const schema = z.object({
  model_max_length: z.int().min(2).max(4096),
  cases: z.array(z.object({ text: z.string(), input_ids: z.array(id), agree: z.boolean() })),
});

const SHIPPED = fileURLToPath(new URL('../../models/small-base/tokenizer', import.meta.url));
const EXACT = 'ids are equal or wrong';

/** The vocabulary beside the strings (`<model>/tokenizer/`), else the one this project ships. */
function vocabularyFolder(directory: string): string {
  const models = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const folders = models.map((entry) => join(directory, entry.name, 'tokenizer'));
  return folders.find((folder) => existsSync(join(folder, 'vocab.json'))) ?? SHIPPED;
}

/** The tokenizer of a golden directory, for rows of `length` ids. @throws FileError when a file is missing or malformed */
export async function readVocabulary(directory: string, length: number): Promise<Tokenizer> {
  const limits = { vocab_size: 2 ** 31, max_position_embeddings: length };
  return (await readTokenizer(vocabularyFolder(directory), limits)).tokenizer;
}

const equal = (a: ArrayLike<number>, b: ArrayLike<number>): boolean =>
  a.length === b.length && Array.from(a).every((value, i) => value === b[i]);

/**
 * Two counts (strings all tokenizers agree on, strings where they differ and transformers' slow one is followed), then a
 * case for every string that came out wrong. `agree` only sorts; `input_ids` must be met in both groups.
 * @throws FileError when a file is missing or malformed
 */
export async function* verifyTokenizer(directory: string, given?: Tokenizer): AsyncGenerator<GoldenCase> {
  const json = await readGoldenJson(directory, 'tokenizer.json', schema);
  const { encode } = given ?? (await readVocabulary(directory, json.model_max_length));
  const wrong = json.cases.filter(({ text, input_ids }) => !equal(encode(text).ids, input_ids));
  for (const agree of [true, false]) {
    const all = json.cases.filter((c) => c.agree === agree).length;
    if (all === 0) continue;
    yield {
      case: `tokenizer: ${all} strings ${agree ? 'all tokenizers agree on' : 'they differ on'}`,
      error: wrong.filter((c) => c.agree === agree).length,
      tolerance: 0,
      why: EXACT,
    };
  }
  for (const { text } of wrong)
    yield { case: `tokenizer: ${JSON.stringify(text.slice(0, 60))}`, error: 1, tolerance: 0, why: EXACT };
}
