/** Structure-aware mutants through the safetensors reader: every one must be read completely or refused with one line. */
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { parseSafetensors } from '../../../models/io/safetensors.ts';
import { casesOf, patience, seedOf } from '../../support/drivers.ts';
import { mutate, randomInts, seeds } from '../../support/safetensors-mutants.ts';

const COUNT = casesOf('safetensors');
const SEED = seedOf(20_261_124);

const SIZES: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
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

/** Puts mutants through a reader. @returns how many were read @throws Error naming the first one that shows a fault */
async function tryMutants(parse: typeof parseSafetensors, count: number): Promise<number> {
  const start = await seeds();
  const random = randomInts(SEED);
  let accepted = 0;
  for (let i = 0; i < count; i++) {
    const bytes = mutate(start[random(start.length)], random);
    const told = () => Buffer.from(bytes).toString('latin1');
    try {
      const file = parse(bytes, 'mutant.safetensors');
      for (const [name, { shape }] of file.tensors) {
        const values = await file.bytes(name);
        if (shape.includes(0) !== (values.length === 0)) throw new Error(`mutant ${i}: ${name} has the wrong length`);
      }
      if (!isSound(bytes)) throw new Error(`mutant ${i} was accepted: ${told()}`);
      accepted++;
    } catch (error) {
      if (!(error instanceof FileError)) throw new Error(`mutant ${i}: ${told()}`, { cause: error });
      if (!error.message.startsWith('mutant.safetensors: ')) throw new Error(`mutant ${i}: ${error.message}`);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: that there are none is the point
      if (/[\u0000-\u001f\u007f]/.test(error.message)) throw new Error(`mutant ${i}: unprintable message`);
    }
  }
  return accepted;
}

describe('fuzzing the safetensors reader', () => {
  it(
    `reads or refuses ${COUNT} mutants`,
    async () => {
      const accepted = await tryMutants(parseSafetensors, COUNT);
      // Both kinds must occur, or the mutator has lost its edge.
      expect(accepted).toBeGreaterThan(COUNT / 100);
      expect(accepted).toBeLessThan(COUNT / 2);
      expect(Object.getOwnPropertyNames(Object.prototype)).toHaveLength(12);
    },
    patience('safetensors', 600_000),
  );

  /** Readers as they are written in a hurry. */
  const spoilt: Readonly<Record<string, typeof parseSafetensors>> = {
    'trusts the length that the file claims': (bytes, name) => {
      const claimed = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      new Uint8Array(bytes.buffer, bytes.byteOffset + 8, claimed);
      return parseSafetensors(bytes, name);
    },
    'overlooks bytes behind the last tensor': (bytes, name) => {
      for (let length = bytes.length; ; length--)
        try {
          return parseSafetensors(bytes.subarray(0, length), name);
        } catch (error) {
          if (!/trailing/.test((error as Error).message)) throw error;
        }
    },
    'repeats in its message what is in the file': (bytes, name) => {
      try {
        return parseSafetensors(bytes, name);
      } catch (error) {
        throw Object.assign(error as Error, { message: `${name}: ${Buffer.from(bytes).toString('latin1')}` });
      }
    },
  };
  it.each(Object.entries(spoilt))('finds out a reader that %s', async (_, parse) => {
    await expect(tryMutants(parse, 2_000)).rejects.toThrow(/^mutant \d+/);
  });
});
