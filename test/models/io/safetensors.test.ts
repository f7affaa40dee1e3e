/** Reading and writing safetensors: number formats by closed form, the format's rules case by case, round trips. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  bfloatToFloat,
  DTYPE_BYTES,
  type FileDType,
  floatToBfloat,
  floatToHalf,
  halfToFloat,
} from '../../../models/io/dtypes.ts';
import { openSafetensors, parseSafetensors } from '../../../models/io/safetensors.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { casesOf, patience, seedOf } from '../../support/drivers.ts';
import { encodeSafetensors } from '../../support/safetensors-bytes.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-st-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const bitsOf = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);
const ALL = Uint16Array.from({ length: 65_536 }, (_, i) => i);

/** The value of a binary format with e exponent and f fraction bits, by its definition. */
function patternValue(bits: number, e: number, f: number): number {
  const sign = bits >>> (e + f) ? -1 : 1;
  const exponent = (bits >>> f) & (2 ** e - 1);
  const fraction = (bits & (2 ** f - 1)) / 2 ** f;
  const bias = 2 ** (e - 1) - 1;
  if (exponent === 2 ** e - 1) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
}

/** Round to nearest even to f fraction bits, by arithmetic in float64. */
function nearest(x: number, e: number, f: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  const bias = 2 ** (e - 1) - 1;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), 1 - bias);
  const unit = 2 ** (exponent - f);
  const q = x / unit;
  const floor = Math.floor(q);
  const rest = q - floor;
  const rounded = unit * (rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor);
  const largest = (2 - 2 ** -f) * 2 ** bias;
  return Math.abs(rounded) > largest ? Math.sign(x) * Infinity : rounded === 0 ? 0 * Math.sign(x) : rounded;
}

describe('half floats and bfloats', () => {
  it('has the exact value of every pattern, and comes back to it, NaN payloads included', () => {
    const halves = halfToFloat(ALL);
    const bfloats = bfloatToFloat(ALL);
    for (let i = 0; i < 65_536; i++) {
      if (!Object.is(halves[i], patternValue(i, 5, 10))) throw new Error(`half ${i} is ${halves[i]}`);
      if (!Object.is(bfloats[i], patternValue(i, 8, 7))) throw new Error(`bfloat ${i} is ${bfloats[i]}`);
    }
    expect(floatToHalf(halves)).toEqual(ALL);
    expect(floatToBfloat(bfloats)).toEqual(ALL);
  });

  it('rounds float32 to nearest even', () => {
    // Around every half float: the value, the midpoint to the next, and one float32 step to each side of both.
    const near = (values: Float32Array) => {
      const floats: number[] = [];
      for (let i = 0; i + 1 < values.length; i += 7) {
        const points = Float32Array.of(values[i], (values[i] + values[i + 1]) / 2);
        for (const bits of bitsOf(points)) floats.push(bits - 1, bits, bits + 1);
      }
      return new Float32Array(Uint32Array.from(floats).buffer).filter((x) => !Number.isNaN(x));
    };
    const finite = (e: number, f: number) =>
      Float32Array.from(ALL, (i) => patternValue(i, e, f)).filter(Number.isFinite);
    for (const [x, convert, back, e, f] of [
      [near(finite(5, 10)), floatToHalf, halfToFloat, 5, 10],
      [near(finite(8, 7)), floatToBfloat, bfloatToFloat, 8, 7],
    ] as const) {
      const rounded = back(convert(x));
      for (let i = 0; i < x.length; i++) {
        if (!Object.is(rounded[i], nearest(x[i], e, f)))
          throw new Error(`${x[i]} → ${rounded[i]}, not ${nearest(x[i], e, f)}`);
      }
    }
    expect([...floatToHalf(Float32Array.of(65_519.99, 65_520, -65_520, 2 ** -25, 2 ** -25 * 1.0001, NaN))]).toEqual([
      0x7bff, 0x7c00, 0xfc00, 0, 1, 0x7e00,
    ]);
    // A NaN whose payload sits in the low bits only must not become ∞.
    const nan = new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer);
    expect([...floatToHalf(nan)]).toEqual([0x7e00, 0xfe00]);
    expect([...floatToBfloat(nan)]).toEqual([0x7fc0, 0xffc0]);
  });
});

/** A file from a header text and data, as any program might write it. */
function raw(header: string | Uint8Array, data = 0, length?: bigint): Uint8Array {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const out = new Uint8Array(8 + json.length + data);
  new DataView(out.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  out.set(json, 8);
  return out;
}

const tensor = (name: string, dtype: string, shape: string, begin: number, end: number) =>
  `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;
const W = tensor('w', 'F32', '[2,2]', 0, 16);

describe('the rules of the format', () => {
  const refused: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ['an empty file', new Uint8Array(0), /header: the file is too short/],
    ['a length of 0', raw(''), /header: length is 0/],
    ['a length beyond the file', raw(`{${W}}`, 16, 1000n), /header: length 1000 does not fit/],
    ['a length above the limit', raw('{}', 0, 100_000_001n), /header: length 100000001 is above/],
    ['a length of 2⁶³', raw('{}', 0, 2n ** 63n), /header: length 9223372036854775808 is above/],
    ['the true length plus 2³²', raw('{}', 0, 2n ** 32n + 2n), /header: length 4294967298 is above/],
    ['a byte-order mark', raw(`\ufeff{${W}}`, 16), /header: is not JSON: it must begin with \{/],
    ['bytes that are no UTF-8', raw(Uint8Array.of(0x7b, 0xff, 0x7d)), /header: is not UTF-8/],
    ['an array', raw('[]'), /header: is not JSON: it must begin/],
    ['two objects', raw(`{${W}}{}`, 16), /header: not valid JSON/],
    ['a name twice', raw(`{${W},${W}}`, 16), /duplicate key "w"/],
    ['a name twice in two spellings', raw(`{${W},${W.replace('w', '\\u0077')}}`, 16), /duplicate key "w"/],
    [
      'a field twice',
      raw(`{"w":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}`, 4),
      /w.dtype: duplicate key/,
    ],
    ['no dtype', raw('{"w":{"shape":[],"data_offsets":[0,4]}}', 4), /tensor "w": has no dtype/],
    ['an unknown dtype', raw(`{${tensor('w', 'constructor', '[1]', 0, 4)}}`, 4), /tensor "w": dtype: is "constructor"/],
    ['a negative shape', raw(`{${tensor('w', 'F32', '[-2,-2]', 0, 16)}}`, 16), /w.shape: -2 is not a plain/],
    ['a shape of floats', raw(`{${tensor('w', 'F32', '[4.0]', 0, 16)}}`, 16), /w.shape: 4.0 is not a plain/],
    ['a shape of minus zero', raw(`{${tensor('w', 'F32', '[-0]', 0, 0)}}`), /w.shape: -0 is not a plain/],
    ['a shape of strings', raw(`{${tensor('w', 'F32', '["4"]', 0, 16)}}`, 16), /shape: is \["4"\]/],
    ['a shape that overflows', raw(`{${tensor('w', 'F32', '[4294967296,4294967296]', 0, 0)}}`), /shape: .* overflows/],
    ['too few bytes', raw(`{${tensor('w', 'F32', '[2,2]', 0, 12)}}`, 12), /takes 16 bytes, data_offsets cover 12/],
    ['offsets past the end', raw(`{${W}}`, 15), /data_offsets: reaches 1 bytes past the end/],
    ['an overlap', raw(`{${W},${tensor('v', 'F32', '[2]', 8, 16)}}`, 16), /"v": data_offsets: begins 8 bytes inside/],
    ['a hole', raw(`{${tensor('v', 'F32', '[]', 20, 24)},${W}}`, 24), /"v": data_offsets: leaves a hole of 4/],
    ['trailing bytes', raw(`{${W}}`, 17), /1 trailing bytes/],
    ['metadata of numbers', raw('{"__metadata__":{"a":1}}'), /__metadata__.a: must be a string/],
    ['a lone surrogate', raw('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), /not well-formed Unicode/],
    ['65 nested arrays', raw(`{"w":${'['.repeat(65)}${']'.repeat(65)}}`), /w: JSON depth is above 64/],
    ['a Git LFS pointer', new TextEncoder().encode('version https://git-lfs.github.com/spec/v1\n'), /Git LFS pointer/],
    ['a zip archive', new TextEncoder().encode('PK\u0003\u0004 and more'), /zip archive.*never opened.*torch\.load/],
    ['a name that moves the cursor', raw('{"\\u001b[2J":{"dtype":"F0"}}'), /tensor "\\u\{1b\}\[2J": has no shape/],
  ];
  it.each(refused)('refuses %s', (_what, bytes, message) => {
    expect(() => parseSafetensors(bytes, 'x.safetensors')).toThrow(message);
    expect(() => parseSafetensors(bytes, 'x.safetensors')).toThrow(/^x\.safetensors: .*$/);
  });

  it('reads what is unusual and right', async () => {
    const odd = parseSafetensors(raw(`{${W}} `, 16), 'odd'); // the data begin at an odd byte
    expect(odd.tensors.get('w')!.begin % 4).not.toBe(0);
    expect(await odd.float32('w')).toEqual(new Float32Array(4));
    const proto = parseSafetensors(raw(`{${tensor('__proto__', 'U8', '[1]', 0, 1)}}`, 1), 'proto');
    expect([...proto.tensors.keys()]).toEqual(['__proto__']);
    expect(parseSafetensors(raw('{}'), 'none').tensors.size).toBe(0);
    const empty = parseSafetensors(
      raw(`{${tensor('e', 'F32', '[3,0]', 0, 0)},${tensor('s', 'F32', '[]', 0, 4)}}`, 4),
      'e',
    );
    expect(await empty.float32('e')).toHaveLength(0);
    expect(await empty.float64('s')).toEqual(Float64Array.of(0));
  });

  it('refuses pipes, folders and files that change while open', async () => {
    await expect(openSafetensors(scratch)).rejects.toThrow(/is a directory/);
    await expect(openSafetensors(path.join(scratch, 'nothing'))).rejects.toThrow(/nothing: no such file/);
    await expect(openSafetensors('/dev/zero')).rejects.toThrow(/not a regular file/);
    const file = path.join(scratch, 'changing.safetensors');
    writeFileSync(file, raw(`{${W}}`, 16));
    const opened = await openSafetensors(file);
    expect(await opened.float32('w')).toHaveLength(4);
    writeFileSync(file, raw(`{${W}}`, 15));
    await expect(opened.float32('w')).rejects.toThrow(/changed while it was in use/);
    await expect(opened.float32('v')).rejects.toThrow(/tensor "v": is not in the file/);
  });
});

describe('conversions', () => {
  const file = async (dtype: FileDType, data: TensorOut['data'], size: number) =>
    parseSafetensors(await encodeSafetensors(new Map([['x', { dtype, shape: [size], data }]])), 'x');
  it('converts exactly or refuses', async () => {
    const i64 = await file('I64', BigInt64Array.of(-3n, 1_099_511_627_776n), 2);
    expect(await i64.float64('x')).toEqual(Float64Array.of(-3, 1_099_511_627_776));
    await expect(i64.int32('x')).rejects.toThrow(/holds 1099511627776, which a Int32Array cannot/);
    await expect((await file('I64', BigInt64Array.of(2n ** 60n), 1)).float64('x')).rejects.toThrow(/cannot/);
    await expect((await file('F32', Float32Array.of(1), 1)).int32('x')).rejects.toThrow(/holds F32, integers/);
    expect(await (await file('U8', Uint8Array.of(0, 255), 2)).int32('x')).toEqual(Int32Array.of(0, 255));
    expect(await (await file('I64', Int32Array.of(-1, 7), 2)).int32('x')).toEqual(Int32Array.of(-1, 7));
    expect(await (await file('F64', Float64Array.of(0.1, 1e300), 2)).float32('x')).toEqual(
      Float32Array.of(0.1, Infinity),
    );
    expect(await (await file('F32', Float64Array.of(0.1), 1)).float64('x')).toEqual(Float64Array.of(Math.fround(0.1)));
    expect(await (await file('BF16', Float32Array.of(1.5), 1)).half('x')).toEqual(Uint16Array.of(0x3e00));
    expect(await (await file('F16', ALL, 65_536)).half('x')).toEqual(ALL);
  });
  it.each(['F8_E4M3', 'F8_E5M2'] as const)('%s: all 256 patterns as PyTorch reads them', async (dtype) => {
    const golden: unknown = JSON.parse(
      readFileSync(path.join(import.meta.dirname, '../../golden/io/fp8.json'), 'utf8'),
    );
    const wanted = (golden as Record<string, (number | string | null)[]>)[dtype]!.map((value) =>
      value === null ? Number.NaN : value === 'inf' ? Infinity : value === '-inf' ? -Infinity : Number(value),
    );
    const all = await file(
      dtype,
      Uint8Array.from({ length: 256 }, (_, byte) => byte),
      256,
    );
    expect([...(await all.float32('x'))]).toEqual(wanted);
    expect([...halfToFloat(await all.half('x'))]).toEqual(wanted);
    await expect(all.int32('x')).rejects.toThrow(/integers were expected/);
  });
  it('keeps the bits of float32 NaNs', async () => {
    const bits = Uint32Array.of(0x7fc00001, 0x7f800001, 0xffabcdef, 0x80000000);
    const read = await (await file('F32', new Float32Array(bits.buffer), 4)).float32('x');
    expect(bitsOf(read)).toEqual(bits);
  });
  it('converts tensors larger than one chunk', async () => {
    const count = (5 << 20) / 2; // 5 MiB of half floats, read in chunks of 4 MiB
    const halves = Uint16Array.from({ length: count }, (_, i) => i % 31_744);
    const target = path.join(scratch, 'large.safetensors');
    await writeSafetensors(target, new Map([['x', { dtype: 'F16', shape: [count], data: halves }]]));
    const read = await (await openSafetensors(target)).float32('x');
    expect(Buffer.compare(new Uint8Array(read.buffer), new Uint8Array(halfToFloat(halves).buffer))).toBe(0);
  });
  it('refuses data that do not fill the shape', async () => {
    await expect(file('F32', new Float32Array(3), 4)).rejects.toThrow(RangeError);
    await expect(file('I32', new Float32Array(4), 4)).rejects.toThrow(/cannot store a Float32Array as I32/);
  });
});

describe('round trips', () => {
  const dtypes = Object.keys(DTYPE_BYTES) as FileDType[];
  const tensors = fc.uniqueArray(
    fc.record({
      name: fc.oneof(
        fc.string(),
        fc.string({ unit: 'grapheme' }),
        fc.constantFrom('__proto__', 'a"b', '\\', 'toString'),
      ),
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 8 }),
      fill: fc.integer({ min: 0, max: 255 }),
    }),
    { selector: ({ name }) => name, maxLength: 64 },
  );
  const metadata = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), {
    noNullPrototype: true,
  });
  const roundTrips = (encode: typeof encodeSafetensors, numRuns: number): Promise<void> =>
    fc.assert(
      fc.asyncProperty(tensors, metadata, async (list, meta) => {
        const well = list.filter(({ name }) => !/\p{Surrogate}/u.test(name) && name !== '__metadata__');
        const out = new Map(
          well.map(({ name, dtype, shape, fill }): [string, TensorOut] => {
            const bytes = shape.reduce((a, b) => a * b, DTYPE_BYTES[dtype]);
            return [name, { dtype, shape, data: Uint8Array.from({ length: bytes }, (_, i) => (fill + 31 * i) & 255) }];
          }),
        );
        const strings = new Map(Object.entries(meta));
        const written = await encode(out, strings);
        const read = parseSafetensors(written, 'x');
        expect(read.metadata).toEqual(strings);
        expect(new Set(read.tensors.keys())).toEqual(new Set(out.keys()));
        for (const [name, { dtype, begin }] of read.tensors) {
          expect(await read.bytes(name)).toEqual(out.get(name)!.data);
          expect(begin % DTYPE_BYTES[dtype], 'aligned').toBe(0);
        }
        const again = new Map(
          [...read.tensors]
            .reverse()
            .map(([name, info]): [string, TensorOut] => [
              name,
              { dtype: info.dtype, shape: info.shape, data: () => read.bytes(name) },
            ]),
        );
        expect(await encode(again, new Map([...read.metadata].reverse()))).toEqual(written);
      }),
      { numRuns, seed: seedOf(Math.floor(Math.random() * 2 ** 31)) },
    );
  it(
    'writes, reads and writes the same bytes, whatever the order',
    {
      timeout: patience('round-trips', 120_000),
    },
    () => roundTrips(encodeSafetensors, casesOf('round-trips')),
  );
  it.each<readonly [string, typeof encodeSafetensors]>([
    [
      'leaves out what is empty',
      (tensors, metadata) =>
        encodeSafetensors(new Map([...tensors].filter(([, { shape }]) => !shape.includes(0))), metadata),
    ],
    [
      'writes in the order it is given',
      async (tensors, metadata) => {
        const bytes = await encodeSafetensors(tensors, metadata);
        const first = [...tensors.keys()][0];
        return first !== undefined && first !== [...tensors.keys()].sort()[0] ? bytes.reverse() : bytes;
      },
    ],
    [
      'forgets texts',
      (tensors, metadata) => encodeSafetensors(tensors, new Map([...(metadata ?? [])].filter(([key]) => key !== ''))),
    ],
  ])('find out a writer that %s', async (_, encode) => {
    await expect(roundTrips(encode, 150)).rejects.toThrow(/Property failed/);
  });
  it('leaves nothing behind when the source of a tensor fails or the writer is told to stop', async () => {
    const folder = mkdtempSync(path.join(scratch, 'fail-'));
    const target = path.join(folder, 'a.safetensors');
    const good: TensorOut = { dtype: 'F32', shape: [1], data: Float32Array.of(1) };
    await writeSafetensors(target, new Map([['good', good]]));
    const broken: TensorOut = { ...good, data: () => Promise.reject(new Error('source failed')) };
    await expect(
      writeSafetensors(
        target,
        new Map([
          ['good', good],
          ['x', broken],
        ]),
      ),
    ).rejects.toThrow('source failed');
    const stop = new AbortController();
    const stopping: TensorOut = {
      ...good,
      data: () => {
        stop.abort();
        return Float32Array.of(2);
      },
    };
    await expect(
      writeSafetensors(target, new Map([['x', stopping]]), new Map(), { signal: stop.signal }),
    ).rejects.toThrow();
    expect(readdirSync(folder)).toEqual(['a.safetensors']);
    expect([...(await openSafetensors(target)).tensors.keys()]).toEqual(['good']);
  });
});
