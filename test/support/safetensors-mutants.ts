/** Structure-aware mutants of safetensors files: damage where a reader could go wrong, made from a seed. */
import type { TensorOut } from '../../models/io/safetensors-write.ts';
import { encodeSafetensors } from './safetensors-bytes.ts';

/** xorshift32: small, seeded, and no part of what is tested. */
export function randomInts(seed: number): (below: number) => number {
  let x = seed | 0 || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

/** Valid files to start from: dtypes, ranks, empty tensors, metadata, odd names. */
export async function seeds(): Promise<readonly Uint8Array[]> {
  const bytes = (n: number) => Uint8Array.from({ length: n }, (_, i) => (i * 37) & 0x7f);
  const one = (dtype: TensorOut['dtype'], shape: readonly number[], size: number): TensorOut => ({
    dtype,
    shape,
    data: bytes(shape.reduce((a, b) => a * b, size)),
  });
  const files: (readonly [string, TensorOut])[][] = [
    [],
    [['w', one('F32', [2, 2], 4)]],
    [
      ['a', one('F16', [3], 2)],
      ['b', one('F64', [], 8)],
      ['c', one('BOOL', [5], 1)],
    ],
    [
      ['empty', one('F32', [0, 4], 4)],
      ['w', one('BF16', [2, 1, 3], 2)],
      ['x.y', one('I64', [2], 8)],
    ],
    [
      ['__proto__', one('U8', [3], 1)],
      ['ünï "q" \\', one('I32', [1], 4)],
      ['constructor', one('U16', [2], 2)],
    ],
    Array.from({ length: 12 }, (_, i) => [`t${i}`, one('U8', [i], 1)] as const),
  ];
  const meta = new Map([
    ['format', 'pt'],
    ['note', 'a "quoted" ünï text'],
  ]);
  const plain = await Promise.all(files.map((file) => encodeSafetensors(new Map(file))));
  const noted = await Promise.all(files.map((file) => encodeSafetensors(new Map(file), meta)));
  return [...plain, ...noted];
}

const NUMBERS = [
  ...['0', '-0', '1', '-1', '2.0', '1e1', '1e999', '0.5', '4294967296', '9007199254740992', '9007199254740993'],
  ...['18446744073709551615', '18446744073709551616', '65536', 'null', '"4"', '[]', '[4]', 'NaN', '01', '+1', 'true'],
];
const DTYPES = [
  '"F32"',
  '"F16"',
  '"U8"',
  '"F33"',
  '"constructor"',
  '"f32"',
  '""',
  'null',
  '32',
  '["F32"]',
  '"F64"',
  '"BOOL"',
];
const SNIPPETS = [
  ...[
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"',
    '\\',
    '\\u0041',
    '\\ud800',
    ' ',
    '\n',
    '\t',
    '\u0000',
    '{}',
    'null',
    '"w":',
    '/**/',
  ],
  ...['"__metadata__":{"a":"b"},', '"__metadata__":{"a":1},', '"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'],
];

/** One mutant: a valid file with one to three changes of header length, header text, header fields or data. */
export function mutate(seed: Uint8Array, random: (below: number) => number): Uint8Array {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)];
  const length = Number(new DataView(seed.buffer, seed.byteOffset).getBigUint64(0, true));
  let header = Buffer.from(seed.subarray(8, 8 + length)).toString('latin1'); // bytes as characters
  let data = Buffer.from(seed.subarray(8 + length));
  let claimed: bigint | undefined;
  for (let changes = 1 + random(3); changes > 0; changes--) {
    const at = random(header.length + 1);
    switch (random(10)) {
      case 0: // header length
        claimed = pick([
          0n,
          1n,
          BigInt(length) - 1n,
          BigInt(length) + 1n,
          BigInt(length) + 8n,
          100_000_001n,
          ...POWERS,
        ]);
        break;
      case 1: // a byte of the header
        header = header.slice(0, at) + String.fromCharCode(random(256)) + header.slice(at + 1);
        break;
      case 2: // insert
        header = header.slice(0, at) + pick(SNIPPETS) + header.slice(at);
        break;
      case 3: // delete
        header = header.slice(0, at) + header.slice(at + 1 + random(6));
        break;
      case 4: // splice: a piece of the header once more
        header = header.slice(0, at) + header.slice(random(header.length + 1)).slice(0, 40) + header.slice(at);
        break;
      case 5: // a number
        header = replaceOne(header, /(?<=[[,])\d+(?=[\],])/g, () => pick(NUMBERS), random);
        break;
      case 6: // a small step of a number: offsets that overlap, leave holes, or shapes that do not fit
        header = replaceOne(
          header,
          /(?<=[[,])\d+(?=[\],])/g,
          (n) => String(Number(n) + pick([1, -1, 2, 4, 8])),
          random,
        );
        break;
      case 7:
        header = replaceOne(header, /"(F32|F16|BF16|F64|U8|U16|I32|I64|BOOL)"/g, () => pick(DTYPES), random);
        break;
      case 8: // a key: missing, renamed, twice
        header = replaceOne(
          header,
          /"(dtype|shape|data_offsets|w|a|__metadata__)"(?=:)/g,
          () => pick(['"dtype"', '"x"', '"shape"', '"w"', '"__metadata__"']),
          random,
        );
        break;
      default: // data: too much or too little
        data =
          random(2) === 0
            ? Buffer.concat([data, Buffer.alloc(1 + random(9))])
            : data.subarray(0, Math.max(0, data.length - 1 - random(9)));
    }
  }
  const text = Buffer.from(header, 'latin1');
  const out = Buffer.alloc(8 + text.length + data.length);
  out.writeBigUInt64LE(BigInt.asUintN(64, claimed ?? BigInt(text.length)), 0);
  text.copy(out, 8);
  data.copy(out, 8 + text.length);
  return new Uint8Array(out.buffer, out.byteOffset, out.length);
}

const POWERS = [2n ** 31n, 2n ** 32n, 2n ** 32n + 60n, 2n ** 53n - 1n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];

function replaceOne(
  text: string,
  pattern: RegExp,
  by: (found: string) => string,
  random: (below: number) => number,
): string {
  const matches = [...text.matchAll(pattern)];
  if (matches.length === 0) return text;
  const match = matches[random(matches.length)];
  return text.slice(0, match.index) + by(match[0]) + text.slice(match.index + match[0].length);
}
