import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer as FastTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bpe, mergeTable } from '../../models/clip/bpe.ts';
import { CLIP_TOKENIZER, capacityOf, compose, createTokenizer } from '../../models/clip/tokenizer.ts';
import { parseMerges, parseTokenizerConfig, parseVocabulary } from '../../models/clip/vocabulary.ts';
import { verifyTokenizer } from '../../train/verify/tokenizer.ts';
import { goldenDirectories, tally } from '../support/golden-cases.ts';
import { LONG } from '../support/long.ts';

const FOLDER = 'models/small-base/tokenizer';
const read = (name: string) => readFileSync(join(FOLDER, name), 'utf8');
const vocabulary = parseVocabulary(read('vocab.json'));
const merges = parseMerges(read('merges.txt'));
const config = parseTokenizerConfig(read('tokenizer_config.json'));
const tokenizer = createTokenizer(vocabulary, merges, config);

type Golden = { cases: { text: string; input_ids: number[]; agree: boolean }[] };
const golden = JSON.parse(readFileSync('test/golden/tokenizer.json', 'utf8')) as Golden;

it('the shipped vocabulary is CLIP’s', () => {
  expect([vocabulary.size, merges.length, tokenizer.vocabularySize]).toEqual([49408, 48894, 49408]);
  expect(config).toEqual(CLIP_TOKENIZER);
});

describe('against transformers', () => {
  it.each(goldenDirectories('tokenizer.json'))('%s', async (directory) => {
    const { count, failed } = await tally(verifyTokenizer(directory));
    expect(failed).toEqual([]);
    expect(count).toBe(2);
  });

  it('names the string that comes out wrong', async () => {
    const other = createTokenizer(vocabulary, merges.slice(0, 20_000), config);
    const { failed } = await tally(verifyTokenizer('test/golden', other));
    expect(failed.length).toBeGreaterThan(10);
    expect(failed.some((line) => line.startsWith('tokenizer: "Hiatal hernia noted."'))).toBe(true);
  });
});

/** CLIP's tokenizer.json as transformers' converter writes it, run by Hugging Face's own library. */
const fast = new FastTokenizer(
  {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: ['<|startoftext|>', '<|endoftext|>'].map((content, i) => ({
      ...{ id: 49406 + i, content, single_word: false, lstrip: false, rstrip: false, normalized: true, special: true },
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {
          type: 'Split',
          pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
          behavior: 'Removed',
          invert: true,
        },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'RobertaProcessing',
      sep: ['<|endoftext|>', 49407],
      cls: ['<|startoftext|>', 49406],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: null,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<|endoftext|>',
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      fuse_unk: false,
      vocab: Object.fromEntries(vocabulary),
      merges: merges.map(([left, right]) => `${left} ${right}`),
    },
  },
  JSON.parse(read('tokenizer_config.json')),
);
const body = (text: string) => fast.encode(text).ids.slice(1, -1);

describe('against @huggingface/tokenizers', () => {
  const agreeing = golden.cases.filter((c) => c.agree && !c.text.includes('<|'));
  it('on the strings where all tokenizers agree', () => {
    expect(agreeing.length).toBeGreaterThan(150);
    for (const { text } of agreeing) expect([text, tokenizer.tokenize(text)]).toEqual([text, body(text)]);
  });

  // Outside these alphabets the two differ on purpose: Chinese, control and zero-width characters, final sigma.
  const words = fc.constantFrom('effusion', 'Pleural', "patient's", 'X-RAY', '2.3cm', '<5', "I'LL", 'T1/T2', '…', '  ');
  const letters = fc.string({
    unit: fc.constantFrom(...'abcdefghijklmnopqrstuvwxyzABCXYZ \'".,-/0189!?()éüßñÅλμжй°±²'),
  });
  it('on random text', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(words, letters)), (parts) => {
        const text = parts.join('');
        expect(tokenizer.tokenize(text)).toEqual(body(text));
      }),
      { numRuns: 600 },
    );
  });
});

describe('byte pair encoding', () => {
  /** The rule as it is written: find the best pair, join all its occurrences, begin again. */
  function literal(pairs: readonly (readonly [string, string])[], symbols: readonly string[]): readonly string[] {
    const rank = (i: number) => pairs.findLastIndex(([l, r]) => l === symbols[i] && r === symbols[i + 1]);
    const ranks = symbols.slice(1).map((_, i) => rank(i));
    const best = Math.min(...ranks.filter((r) => r >= 0));
    if (best === Infinity) return symbols;
    const [left, right] = pairs[best]!;
    const joined: string[] = [];
    for (let i = 0; i < symbols.length; i++)
      if (symbols[i] === left && symbols[i + 1] === right) joined.push(left + symbols[++i]!);
      else joined.push(symbols[i]!);
    return literal(pairs, joined);
  }
  const symbol = fc.stringMatching(/^[ab]{1,3}$/);
  const right = fc.tuple(symbol, fc.constantFrom('', '</w>')).map((parts) => parts.join(''));

  it('joins as the rule says, whatever order the merges are in', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(symbol, right), { maxLength: 30 }),
        fc.stringMatching(/^[ab]{1,25}$/),
        (pairs, word) => {
          const table = mergeTable(pairs);
          const got = bpe(table, new TextEncoder().encode(word)).map((s) => table.symbols[s]);
          expect(got).toEqual(literal(pairs, [...word.slice(0, -1), `${word.at(-1)}</w>`]));
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('hostile text', () => {
  // Quadratic work would take minutes here; the limits leave room for a busy machine.
  const million = LONG ? 1_000_000 : 200_000;
  it.each([
    ['one word of one letter', 'a'.repeat(million)],
    [
      'one word of all letters',
      Array.from({ length: million }, (_, i) => String.fromCharCode(97 + ((i * i) % 26))).join(''),
    ],
    ['accents on one letter', `a${'\u0316\u0301'.repeat(million / 2)}`],
    ['a million words', '1'.repeat(million)],
    ['punctuation', '!'.repeat(million)],
  ])('%s', { timeout: 10_000 }, (_name, text) => {
    const { ids, cut, length } = tokenizer.encode(text);
    expect([ids.length, ids[0], ids[76], cut]).toEqual([77, 49406, 49407, true]);
    expect(length).toBeGreaterThan(0.06 * million);
  });

  it('composes as Unicode does up to 256 accents in a row', () => {
    const mark = fc.integer({ min: 0x300, max: 0x36f }).map((c) => String.fromCharCode(c));
    const piece = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.array(mark, { maxLength: 100 }).map((m) => m.join('')),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 2 }), fc.string({ unit: 'binary' }), (parts, rest) => {
        const text = parts.join('') + rest;
        expect(compose(text)).toBe(text.normalize('NFC'));
      }),
      { numRuns: 150 },
    );
    expect(compose('각 é ệ'.normalize('NFD'))).toBe('각 é ệ');
  });

  it('takes any UTF-16, lone surrogates included', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 40 }), (units) => {
        const { ids } = tokenizer.encode(String.fromCharCode(...units));
        expect(ids.every((id) => id >= 0 && id < 49408)).toBe(true);
      }),
    );
  });
});

describe('encoding', () => {
  it('cuts after 75 ids and says so', () => {
    const words = (n: number) => tokenizer.encode('word '.repeat(n));
    expect([words(74), words(75), words(76)].map(({ cut, length }) => [cut, length])).toEqual([
      [false, 76],
      [false, 77],
      [true, 78],
    ]);
    expect([...words(76).ids]).toEqual([...words(75).ids]);
    expect([...words(0).ids]).toEqual([49406, ...Array(76).fill(49407)]);
  });

  it('goes on in chunks: each with its own start and end, cut after the last', () => {
    // kohya's rule, written as its scripts do: pad the whole text to 75·k + 2 ids, then take 75 at a time
    const reference = (text: string, k: number): number[] => {
      const whole = [49406, ...tokenizer.tokenize(text).slice(0, 75 * k), 49407];
      while (whole.length < 75 * k + 2) whole.push(49407);
      return Array.from({ length: k }, (_, c) => [49406, ...whole.slice(1 + 75 * c, 76 + 75 * c), 49407]).flat();
    };
    for (const n of [0, 1, 74, 75, 76, 149, 150, 151, 225, 226])
      for (const k of [1, 2, 3]) {
        const text = Array.from({ length: n }, (_, i) => ['lung', 'heart', 'rib'][i % 3]).join(' ');
        const { ids, cut, length } = tokenizer.encode(text, k);
        expect([...ids], `${n} words, ${k} chunks`).toEqual(reference(text, k));
        expect([cut, length]).toEqual([n > 75 * k, n + 2]);
      }
    expect([1, 2, 3].map((k) => capacityOf(CLIP_TOKENIZER, k))).toEqual([77, 152, 227]);
    const sd2 = createTokenizer(vocabulary, merges, { ...CLIP_TOKENIZER, pad: '!' });
    expect(() => sd2.encode('chest', 2)).toThrow(/caption chunks: this tokenizer pads with !/);
  });

  it('follows the config: another length, another padding', () => {
    const sd2 = createTokenizer(vocabulary, merges, { ...CLIP_TOKENIZER, maxLength: 6, pad: '!' });
    expect([...sd2.encode('chest').ids]).toEqual(
      [49406, 10563, 49407, 256, 256, 256].map((id) => (id === 256 ? vocabulary.get('!')! : id)),
    );
    expect([...sd2.encode('chest x-ray of the chest').ids]).toEqual([49406, 10563, 343, 268, 3077, 49407]);
  });

  it('gives the same ids again, and for text seen before', () => {
    const text = 'No focal areas of pulmonary consolidation.';
    const fresh = createTokenizer(vocabulary, merges, config);
    for (let i = 0; i < 3; i++) expect(tokenizer.tokenize(text)).toEqual(fresh.tokenize(text));
  });
});

describe('broken files', () => {
  it.each([
    ['{"a": 1.5}', /^tokenizer\/vocab\.json: "a": expected a whole number/],
    ['{"a": -1}', /^tokenizer\/vocab\.json: "a": /],
    ['{"a": 99999999999}', /^tokenizer\/vocab\.json: "a": /],
    ['{"a": "1"}', /^tokenizer\/vocab\.json: "a": /],
    ['[1, 2]', /^tokenizer\/vocab\.json: expected an object/],
    ['null', /^tokenizer\/vocab\.json: expected an object/],
    ['{"a": ', /^tokenizer\/vocab\.json: .*JSON/],
  ])('vocab.json %s', (text, message) => expect(() => parseVocabulary(text)).toThrow(message));

  it.each([
    ['#version: 0.2\nt h\nth e</w> x\n', /^tokenizer\/merges\.txt: line 3: expected two symbols.*"th e<\/w> x"/],
    ['#version: 0.2\nt h\nthe\n', /^tokenizer\/merges\.txt: line 3: /],
    ['t h\n\nh e\n', /^tokenizer\/merges\.txt: line 2: /],
  ])('merges.txt %j', (text, message) => expect(() => parseMerges(text)).toThrow(message));

  it('merges.txt with Windows line ends, and without a version', () => {
    expect(parseMerges('#version: 0.2\r\nt h\r\nth e</w>\r\n')).toEqual([
      ['t', 'h'],
      ['th', 'e</w>'],
    ]);
    expect(parseMerges('t h\n')).toEqual([['t', 'h']]);
  });

  it('__proto__ is a symbol like any other', () => {
    expect(parseVocabulary('{"__proto__": 3, "constructor": 4}').get('__proto__')).toBe(3);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it('tokenizer_config.json', () => {
    expect(() => parseTokenizerConfig('{"model_max_length": "77"}')).toThrow(
      /tokenizer_config\.json: model_max_length: /,
    );
    expect(() => parseTokenizerConfig('{"pad_token": 5}')).toThrow(/tokenizer_config\.json: pad_token: /);
    expect(parseTokenizerConfig('{"model_max_length": 1e30, "pad_token": "!"}')).toMatchObject({
      maxLength: 77,
      pad: '!',
    });
  });

  it('a special token outside the vocabulary', () => {
    expect(() => createTokenizer(new Map([['a', 0]]), [])).toThrow(
      'vocab.json: start token "<|startoftext|>" is missing',
    );
  });
});
