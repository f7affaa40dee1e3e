/**
 * Structure-aware mutants through the safetensors reader. SELORA_FUZZ sets their number (default 20,000; 1,000,000 take
 * about a minute). Every one must be read completely or refused with one line.
 */
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { parseSafetensors } from '../../../models/io/safetensors.ts';
import { mutate, randomInts, seeds } from '../../support/safetensors-mutants.ts';

const COUNT = Number(process.env.SELORA_FUZZ ?? 20_000);
const SEED = Number(process.env.SELORA_SEED ?? 20_261_124);

const SIZES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
};

/** What an accepted file must be, stated independently of the reader: with JSON.parse and arithmetic only. */
function isSound(bytes: Uint8Array): boolean {
  const buffer = Buffer.from(bytes);
  const length = Number(buffer.readBigUInt64LE(0));
  const json: unknown = JSON.parse(buffer.subarray(8, 8 + length).toString('utf8'));
  const data = bytes.length - 8 - length;
  if (data < 0) return false;
  const covered = new Uint8Array(data);
  for (const [name, value] of Object.entries(json as object)) {
    if (name === '__metadata__') {
      if (!Object.values(value as object).every((text) => typeof text === 'string')) return false;
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = value as { dtype: string; shape: number[]; data_offsets: number[] };
    const size = shape.reduce((a, b) => a * b, SIZES[dtype]);
    if (offsets.length !== 2 || offsets[1] - offsets[0] !== size || offsets[1] > data) return false;
    for (let i = offsets[0]; i < offsets[1]; i++) if (covered[i]++ !== 0) return false;
  }
  return covered.every((n) => n === 1);
}

describe('fuzzing the safetensors reader', () => {
  it(`reads or refuses ${COUNT} mutants`, async () => {
    const start = await seeds();
    const random = randomInts(SEED);
    let accepted = 0;
    for (let i = 0; i < COUNT; i++) {
      const bytes = mutate(start[random(start.length)], random);
      try {
        const file = parseSafetensors(bytes, 'mutant.safetensors');
        for (const [name, { shape }] of file.tensors) {
          const values = await file.bytes(name);
          if (shape.includes(0) !== (values.length === 0)) throw new Error(`mutant ${i}: ${name} has the wrong length`);
        }
        if (!isSound(bytes)) throw new Error(`mutant ${i} was accepted: ${Buffer.from(bytes).toString('latin1')}`);
        accepted++;
      } catch (error) {
        if (!(error instanceof FileError))
          throw new Error(`mutant ${i}: ${Buffer.from(bytes).toString('latin1')}`, { cause: error });
        if (!error.message.startsWith('mutant.safetensors: ')) throw new Error(`mutant ${i}: ${error.message}`);
        // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point
        if (/[\u0000-\u001f\u007f]/.test(error.message)) throw new Error(`mutant ${i}: unprintable message`);
      }
    }
    // Both kinds must occur, or the mutator has lost its edge.
    expect(accepted).toBeGreaterThan(COUNT / 100);
    expect(accepted).toBeLessThan(COUNT / 2);
    expect(Object.getOwnPropertyNames(Object.prototype)).toHaveLength(12);
  }, 600_000);
});
