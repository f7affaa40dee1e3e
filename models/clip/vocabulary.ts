/** What the files of a `tokenizer/` folder mean: vocab.json, merges.txt, tokenizer_config.json. Reading them: `models/io`. */
import { z } from 'zod';
import { FileError, quoted } from '../io/error.ts';
import { parseJson } from '../io/json.ts';
import { CLIP_TOKENIZER, type TokenizerConfig } from './tokenizer.ts';

/** transformers reads so many merges and no more (OpenAI's own list is longer than its vocabulary). */
const MAX_MERGES = 49152 - 256 - 2;
const MAX_ID = 2 ** 24;

/**
 * Checks the content of vocab.json: an object of symbol → id, each id a whole number.
 * @throws FileError naming file and symbol
 */
export function parseVocabulary(text: string, file = 'tokenizer/vocab.json'): ReadonlyMap<string, number> {
  const json = parseJson(text, file);
  if (json === null || typeof json !== 'object' || Array.isArray(json))
    throw new FileError(file, '', 'expected an object of symbols and ids');
  const entries = Object.entries(json);
  // A loop and not zod: 49,408 entries, and one of them may be called __proto__.
  for (const [symbol, id] of entries)
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_ID)
      throw new FileError(
        file,
        quoted(symbol),
        `expected a whole number below ${MAX_ID}, found ${JSON.stringify(id).slice(0, 40)}`,
      );
  return new Map(entries as [string, number][]);
}

/**
 * Checks the content of merges.txt: a `#version` line, then two symbols a line, most important first.
 * @throws FileError naming file and line
 */
export function parseMerges(text: string, file = 'tokenizer/merges.txt'): readonly (readonly [string, string])[] {
  const lines = text.trimEnd().split(/\r?\n/);
  const header = lines[0]!.startsWith('#version') ? 1 : 0;
  return lines.slice(header, header + MAX_MERGES).map((line, i) => {
    const [left, right, ...rest] = line.trim().split(/\s+/);
    if (!left || !right || rest.length > 0)
      throw new FileError(file, `line ${i + header + 1}`, `expected two symbols to merge, found ${quoted(line, 80)}`);
    return [left, right] as const;
  });
}

const pieces = z.union([z.string().transform((line) => line.split(' ')), z.array(z.string())]);
const fastSchema = z.object({
  added_tokens: z
    .array(
      z.object({
        id: z
          .int()
          .min(0)
          .max(MAX_ID - 1),
        content: z.string(),
      }),
    )
    .nullish(),
  model: z.object({
    type: z.literal('BPE', { error: 'only "BPE" is supported' }).nullish(),
    end_of_word_suffix: z.literal('</w>', { error: 'only "</w>" is supported, CLIP\'s' }),
    vocab: z.record(z.string(), z.unknown()),
    merges: z.array(pieces.refine((pair) => pair.length === 2, { error: 'expected two symbols to merge' })),
  }),
});

/**
 * Checks the content of tokenizer.json, the one file that transformers 5 writes: vocabulary and merges.
 * @throws FileError naming file and field
 */
export function parseTokenizerJson(
  text: string,
  file = 'tokenizer/tokenizer.json',
): { readonly vocabulary: ReadonlyMap<string, number>; readonly merges: readonly (readonly [string, string])[] } {
  const result = fastSchema.safeParse(parseJson(text, file));
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new FileError(file, issue.path.map(String).join('./'), issue.message);
  }
  const { added_tokens, model } = result.data;
  const vocabulary = new Map(parseVocabulary(JSON.stringify(model.vocab), file));
  for (const { id, content } of added_tokens ?? []) vocabulary.set(content, id);
  return { vocabulary, merges: model.merges.slice(0, MAX_MERGES) as unknown as readonly (readonly [string, string])[] };
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

/** Checks the content of tokenizer_config.json. @throws FileError naming file and field */
export function parseTokenizerConfig(text: string, file = 'tokenizer/tokenizer_config.json'): TokenizerConfig {
  const result = configSchema.safeParse(parseJson(text, file));
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new FileError(file, issue.path.join('./'), issue.message);
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
