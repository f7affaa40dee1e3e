/**
 * CLIP's tokenizer: text → 77 ids (start, at most 75 of the text, end, padding).
 *
 * This is the variant a plain install of Stable Diffusion 1.5 runs: transformers' slow `CLIPTokenizer` without `ftfy`.
 * It drops control, format (zero-width) and unassigned characters, sets blanks around each Chinese character, composes
 * accents (NFC), lowers the case, and does not undo HTML entities. The fast tokenizer and OpenAI's original differ from
 * it in just those points and agree on everything else.
 */
import { bpe, mergeTable } from './bpe.ts';

/** Special symbols and length, what `tokenizer_config.json` says. */
export type TokenizerConfig = {
  /** Length of every encoding, start and end included. */
  readonly maxLength: number;
  /** Stands before every text. */
  readonly start: string;
  /** Stands behind every text. */
  readonly end: string;
  /** Fills what is left of `maxLength`. */
  readonly pad: string;
  /** Stands for symbols outside the vocabulary. */
  readonly unknown: string;
};

/** What SD 1.5's tokenizer_config.json says. */
export const CLIP_TOKENIZER: TokenizerConfig = {
  maxLength: 77,
  start: '<|startoftext|>',
  end: '<|endoftext|>',
  pad: '<|endoftext|>',
  unknown: '<|endoftext|>',
};

/** A text as ids, ready for the text encoder. */
export type Encoding = {
  /** `maxLength` ids for each chunk. */
  readonly ids: Int32Array;
  /** True when the text had more ids than fit. */
  readonly cut: boolean;
  /** Number of ids of the whole text with start and end, before the cut and without padding. */
  readonly length: number;
};

/** Texts → ids by one vocabulary. Remembers words it has met; that changes no result. */
export type Tokenizer = {
  /** What it was made from. */
  readonly config: TokenizerConfig;
  /** Largest id + 1. */
  readonly vocabularySize: number;
  /** Ids of the text alone, uncut. */
  readonly tokenize: (text: string) => number[];
  /**
   * A text as the ids the text encoder reads.
   * @param chunks a long text goes on in so many pieces of `maxLength` ids, each with a start and an end of its own
   * @throws RangeError for several chunks where padding is not the end symbol
   * @example encode('Chest X-ray').ids // Int32Array(77) [49406, 10563, 343, 268, 3077, 49407, 49407, …]
   */
  readonly encode: (text: string, chunks?: number) => Encoding;
};

/** ids of a text that so many chunks hold, start and end counted once: 77, 152, 227 … */
export const capacityOf = ({ maxLength }: TokenizerConfig, chunks: number): number => chunks * (maxLength - 2) + 2;

const REMOVED = /[^\P{C}\t\n\r]|\uFFFD/gu;
const CHINESE =
  /[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]/gu;

/**
 * Pieces that compose on their own: no accent combines across them. Engines sort a run of accents in quadratic time,
 * so a run of more than 256 (which no text has) is taken apart; up to there the result is exactly NFC.
 */
const COMPOSABLE = /\P{M}*\p{M}{0,256}/gu;

/** Unicode's composed form in linear time. */
export const compose = (text: string): string => text.replace(COMPOSABLE, (piece) => piece.normalize('NFC'));

/** The reference's case-blind pattern takes this accent for neither letter (as its capital is) nor other: it only parts words. */
const IOTA_BELOW = '\u0345';

/** Cleans text as BERT's BasicTokenizer does (no accent stripping, no punctuation splitting); cost O(length). */
export const cleanText = (text: string): string =>
  compose(text.replace(REMOVED, '').replace(CHINESE, ' $& ')).toLowerCase().replaceAll(IOTA_BELOW, ' ');

/** Specials, English contractions, runs of letters, single digits, runs of anything else. `ſ` is `s` in any case. */
const WORD = /<\|startoftext\|>|<\|endoftext\|>|'(?:[sſ]|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;

const utf8 = new TextEncoder();

/** Longer words are not remembered, nor more words than this: the memo stays below some 10 MB. */
const MEMO_LETTERS = 64;
const MEMO_WORDS = 2 ** 16;

/** Written in this very case they are cut out of a text before anything else is done to it. */
const SPECIALS = ['<|startoftext|>', '<|endoftext|>'];
const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/;

/**
 * Makes a tokenizer from the content of vocab.json and merges.txt.
 * @param vocabulary symbol → id
 * @param merges pairs in order of priority
 * @throws Error when a special token of the config is not in the vocabulary
 * @example createTokenizer(vocabulary, merges).encode('No acute disease.').length // 6
 */
export function createTokenizer(
  vocabulary: ReadonlyMap<string, number>,
  merges: readonly (readonly [string, string])[],
  config: TokenizerConfig = CLIP_TOKENIZER,
): Tokenizer {
  const idOf = (role: string, token: string): number => {
    const id = vocabulary.get(token);
    if (id === undefined) throw new Error(`vocab.json: ${role} token ${JSON.stringify(token)} is missing`);
    return id;
  };
  if (config.maxLength < 2) throw new Error(`model_max_length: expected at least 2, found ${config.maxLength}`);
  const start = idOf('start', config.start);
  const end = idOf('end', config.end);
  const pad = idOf('padding', config.pad);
  const unknown = idOf('unknown', config.unknown);
  const table = mergeTable(merges);
  const idOfSymbol = Int32Array.from(table.symbols, (symbol) => vocabulary.get(symbol) ?? unknown);
  const vocabularySize = [...vocabulary.values()].reduce((most, id) => Math.max(most, id), -1) + 1;

  const encodeWord = (word: string): readonly number[] =>
    SPECIALS.includes(word)
      ? [vocabulary.get(word) ?? unknown]
      : bpe(table, utf8.encode(word)).map((symbol) => idOfSymbol[symbol]!);
  // Reports repeat their words; remembering them saves the joins and changes no result.
  const memo = new Map<string, readonly number[]>();
  const rememberWord = (word: string): readonly number[] => {
    if (word.length > MEMO_LETTERS) return encodeWord(word);
    const known = memo.get(word);
    if (known) return known;
    const ids = encodeWord(word);
    if (memo.size >= MEMO_WORDS) memo.clear();
    memo.set(word, ids);
    return ids;
  };
  const tokenize = (text: string): number[] => {
    const ids: number[] = [];
    for (const part of text.split(SPECIAL))
      if (SPECIALS.includes(part)) ids.push(vocabulary.get(part) ?? unknown);
      else for (const [word] of cleanText(part).matchAll(WORD)) for (const id of rememberWord(word)) ids.push(id);
    return ids;
  };
  const encode = (text: string, chunks = 1): Encoding => {
    if (chunks > 1 && pad !== end)
      throw new RangeError(
        `caption chunks: this tokenizer pads with ${config.pad}, only padding with ${config.end} is cut`,
      );
    const body = tokenize(text);
    const each = config.maxLength - 2;
    const ids = new Int32Array(chunks * config.maxLength).fill(pad);
    for (let c = 0; c < chunks; c++)
      ids.set([start, ...body.slice(c * each, (c + 1) * each), end], c * config.maxLength);
    return { ids, cut: body.length > chunks * each, length: body.length + 2 };
  };
  return { config, vocabularySize, tokenize, encode };
}
