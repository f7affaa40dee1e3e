/**
 * Writes safetensors files: streamed (one tensor in memory at a time), atomic, and deterministic: the same tensors and
 * metadata give the same bytes whatever the order of the map.
 */
import { type AtomicOptions, type Sink, writeFileAtomic } from './atomic.ts';
import { DTYPE_BYTES, encodeValues, type FileDType, type Values } from './dtypes.ts';
import { MAX_HEADER } from './safetensors-header.ts';

/** A tensor to be written, or how to get it when its turn comes. */
export type TensorOut = {
  /** The type its bytes are to have. */
  readonly dtype: FileDType;
  /** The size of each axis. */
  readonly shape: readonly number[];
  /** The values, or a function that fetches them when their turn comes. */
  readonly data: Values | (() => Values | Promise<Values>);
};

export type Metadata = ReadonlyMap<string, string>;

/**
 * Writes `tensors` to `file`.
 * Layout as the reference writer's: widest dtype first, then by name; header padded with blanks to 8 bytes.
 * @throws FileError when the disk refuses; RangeError when data do not fit their dtype and shape
 * @example await writeSafetensors('a.safetensors', new Map([['w', { dtype: 'F16', shape: [2], data: new Float32Array(2) }]]))
 */
export async function writeSafetensors(
  file: string,
  tensors: ReadonlyMap<string, TensorOut>,
  metadata: Metadata = new Map(),
  options: AtomicOptions = {},
): Promise<void> {
  await writeFileAtomic(file, (write) => streamSafetensors(tensors, metadata, write), options);
}

/** The same bytes, piece by piece: for hashing a file before it is written. */
export async function streamSafetensors(
  tensors: ReadonlyMap<string, TensorOut>,
  metadata: Metadata,
  write: Sink,
): Promise<void> {
  const sorted = [...tensors].sort(
    ([a, x], [b, y]) => DTYPE_BYTES[y.dtype] - DTYPE_BYTES[x.dtype] || (a < b ? -1 : a > b ? 1 : 0),
  );
  await write(header(sorted, metadata));
  for (const [name, tensor] of sorted) {
    const values = typeof tensor.data === 'function' ? await tensor.data() : tensor.data;
    const bytes = encodeValues(tensor.dtype, values);
    if (bytes.byteLength !== byteSize(tensor)) {
      throw new RangeError(
        `${name}: ${bytes.byteLength} bytes do not fill ${tensor.dtype} [${tensor.shape.join(', ')}]`,
      );
    }
    await write(bytes);
  }
}

function byteSize({ dtype, shape }: TensorOut): number {
  return shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
}

/** Written by hand, not through an object: a tensor may be called `__proto__`. */
function header(sorted: readonly (readonly [string, TensorOut])[], metadata: Metadata): Uint8Array {
  const entries: string[] = [];
  if (metadata.size > 0) {
    const pairs = [...metadata].sort(([a], [b]) => (a < b ? -1 : 1));
    entries.push(`"__metadata__":{${pairs.map(([k, v]) => `${literal(k)}:${literal(v)}`).join(',')}}`);
  }
  let at = 0;
  for (const [name, tensor] of sorted) {
    if (name === '__metadata__') throw new RangeError('__metadata__ cannot be the name of a tensor');
    const end = at + byteSize(tensor);
    if (!Number.isSafeInteger(end))
      throw new RangeError(`${name}: shape [${tensor.shape.join(', ')}] is not a valid size`);
    entries.push(
      `${literal(name)}:{"dtype":"${tensor.dtype}","shape":[${tensor.shape.join(',')}],"data_offsets":[${at},${end}]}`,
    );
    at = end;
  }
  const json = new TextEncoder().encode(`{${entries.join(',')}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > MAX_HEADER) throw new RangeError(`a header of ${padded} bytes is above the format's ${MAX_HEADER}`);
  const out = new Uint8Array(8 + padded).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.set(json, 8);
  return out;
}

function literal(text: string): string {
  if (/\p{Surrogate}/u.test(text)) throw new RangeError(`${JSON.stringify(text)} is not well-formed Unicode`);
  return JSON.stringify(text);
}
