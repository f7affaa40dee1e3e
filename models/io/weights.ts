/**
 * The weights of one network as a lazy source: names and shapes are known, values are read one tensor at a time.
 * Where the bytes come from (one file, shards, a single-file checkpoint under other names) is no concern of the reader.
 */
import type { FileDType } from './dtypes.ts';
import { FileError, listed, quoted } from './error.ts';
import type { Safetensors } from './safetensors.ts';
import type { TensorOut } from './safetensors-write.ts';

/** One tensor of a checkpoint: name and shape are known, values are read when asked for. */
export type Weight = {
  /** Its name in the checkpoint. */
  readonly name: string;
  /** The file that holds it. */
  readonly file: string;
  /** The type its bytes have. */
  readonly dtype: FileDType;
  /** The size of each axis. */
  readonly shape: readonly number[];
  /** Values as float32. @throws FileError if one is NaN or infinite */
  readonly read: () => Promise<Float32Array>;
  /** Values as half-float patterns. @throws FileError if one is not finite or too large for a half float */
  readonly readHalf: () => Promise<Uint16Array>;
  /** The bytes as stored, unchecked. */
  readonly readBytes: () => Promise<Uint8Array>;
};

/** The weights of one network, wherever their bytes lie. */
export type WeightSource = {
  /** File or folder, for messages. */
  readonly label: string;
  /** By name in the checkpoint. */
  readonly weights: ReadonlyMap<string, Weight>;
  /** One of them. @throws FileError if there is no such weight */
  readonly get: (name: string) => Weight;
};

/** A source over weights that were found one by one. @throws FileError if two of them have the same name */
export function weightSource(label: string, weights: readonly Weight[]): WeightSource {
  const byName = new Map<string, Weight>();
  for (const weight of weights) {
    if (byName.has(weight.name))
      throw new FileError(weight.file, quoted(weight.name), 'is there twice, under two names');
    byName.set(weight.name, weight);
  }
  const get = (name: string): Weight => {
    const weight = byName.get(name);
    if (weight === undefined) throw new FileError(label, quoted(name), 'is missing');
    return weight;
  };
  return { label, weights: byName, get };
}

/** One tensor of a file as a weight called `name`; `shape` where it is to be seen in another shape of equal size. */
export function weightOf(file: Safetensors, stored: string, name = stored, shape?: readonly number[]): Weight {
  const info = file.tensors.get(stored)!;
  const float = /^(F|BF)/.test(info.dtype);
  const fail = (problem: string) => new FileError(file.file, `tensor ${quoted(stored)}`, problem);
  const floatOnly = () => {
    if (!float) throw fail(`holds ${info.dtype}, floating-point weights were expected`);
  };
  return {
    name,
    file: file.file,
    dtype: info.dtype,
    shape: shape ?? info.shape,
    read: async () => {
      floatOnly();
      const values = await file.float32(stored);
      const bad = firstNonFinite(values);
      if (bad >= 0) throw fail(`value ${bad} is ${values[bad]}, weights must be finite (no NaN)`);
      return values;
    },
    readHalf: async () => {
      floatOnly();
      const halves = await file.half(stored);
      const bad = firstNonFiniteHalf(halves);
      if (bad >= 0) throw fail(`value ${bad} is not finite or above 65504, the largest half float`);
      return halves;
    },
    readBytes: () => file.bytes(stored),
  };
}

/** Index of the first NaN or ±∞, or −1. On bits: one mask per value, and no NaN comparison to get wrong. */
export function firstNonFinite(values: Float32Array): number {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) if ((bits[i] & 0x7f800000) === 0x7f800000) return i;
  return -1;
}

/** The same of half-float patterns; a plain loop, several times faster than findIndex over a billion of them. */
function firstNonFiniteHalf(halves: Uint16Array): number {
  for (let i = 0; i < halves.length; i++) if ((halves[i] & 0x7c00) === 0x7c00) return i;
  return -1;
}

export type Spec = ReadonlyMap<string, readonly number[]>;

export type Difference = {
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  readonly wrongShape: readonly {
    readonly name: string;
    readonly found: readonly number[];
    readonly wanted: readonly number[];
  }[];
};

/** What a source lacks, has too much, or has in another shape than `spec` says. */
export function compareWeights(source: WeightSource, spec: Spec): Difference {
  const { weights } = source;
  return {
    missing: [...spec.keys()].filter((name) => !weights.has(name)),
    unexpected: [...weights.keys()].filter((name) => !spec.has(name)),
    wrongShape: [...spec].flatMap(([name, wanted]) => {
      const found = weights.get(name)?.shape;
      return found === undefined || sameShape(found, wanted) ? [] : [{ name, found, wanted }];
    }),
  };
}

const sameShape = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((n, i) => n === b[i]);

/**
 * Checks names and shapes against what the configuration builds.
 * @throws FileError: one line that lists what is missing, unexpected and of the wrong shape
 */
export function checkWeights(source: WeightSource, spec: Spec): void {
  const { missing, unexpected, wrongShape } = compareWeights(source, spec);
  const shape = (sizes: readonly number[]) => `[${sizes.join(',')}]`;
  const found = [
    missing.length > 0 ? `${missing.length} missing: ${listed(missing)}` : '',
    wrongShape.length > 0
      ? `${wrongShape.length} of the wrong shape: ${listed(
          wrongShape.map((w) => `${w.name} is ${shape(w.found)}, the configuration wants ${shape(w.wanted)}`),
          4,
        )}`
      : '',
    unexpected.length > 0 ? `${unexpected.length} unexpected: ${listed(unexpected)}` : '',
  ].filter((text) => text !== '');
  if (found.length > 0) throw new FileError(source.label, 'tensors', found.join('; '));
}

/**
 * The weights of a source to be written again, each read when its turn comes: bit for bit, or converted to `dtype`.
 * @example writeSafetensors(file, copyWeights(base.parts.unet, 'F16'))
 */
export function copyWeights(source: WeightSource, dtype?: 'F32' | 'F16'): ReadonlyMap<string, TensorOut> {
  return new Map(
    [...source.weights].map(([name, weight]) => {
      const data =
        dtype === undefined || dtype === weight.dtype
          ? weight.readBytes
          : dtype === 'F16'
            ? weight.readHalf
            : weight.read;
      return [name, { dtype: dtype ?? weight.dtype, shape: weight.shape, data }];
    }),
  );
}
