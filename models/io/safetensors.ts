/**
 * Reads safetensors files tensor by tensor: opening reads only the header, and no tensor is in memory twice.
 * Writing: `safetensors-write.ts`.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { DTYPE_BYTES, decodeInto, floatToHalf, type NumberArray } from './dtypes.ts';
import { asFileError, FileError, quoted } from './error.ts';
import { type Header, headerLength, PREFIX_BYTES, parseHeader, type TensorInfo } from './safetensors-header.ts';

export type { TensorInfo } from './safetensors-header.ts';

/** A validated file; its data stay on disk until one of the functions asks for a tensor. */
export type Safetensors = Header & {
  /** Its path. */
  readonly file: string;
  /** Its length. */
  readonly fileBytes: number;
  /** Numbers rounded to float32 where they are wider (F64, large integers); F16 and BF16 exact. */
  readonly float32: (name: string) => Promise<Float32Array>;
  /** Exact for every dtype, or a FileError (64-bit integers beyond 2⁵³). */
  readonly float64: (name: string) => Promise<Float64Array>;
  /** Integer dtypes only, exact, or a FileError. */
  readonly int32: (name: string) => Promise<Int32Array>;
  /** Half-float bit patterns: F16 as stored, everything else rounded to nearest even. */
  readonly half: (name: string) => Promise<Uint16Array>;
  /** The bytes as stored. */
  readonly bytes: (name: string) => Promise<Uint8Array>;
};

/** Fills `into` with the file's bytes from `position` on. */
type ReadRange = (position: number, into: Uint8Array) => Promise<void>;

/** Converting reads go through a buffer of this size: the only memory beside the result. */
const CHUNK_BYTES = 4 << 20;

/**
 * Opens a file: header only, sizes checked before they are allocated.
 * @throws FileError on any violation of the format
 * @example const file = await openSafetensors('model.safetensors'); await file.float32('conv_in.weight')
 */
export async function openSafetensors(file: string): Promise<Safetensors> {
  return withFile(file, undefined, async (handle, size) => {
    const read = rangeReader(handle, file);
    const prefix = new Uint8Array(Math.min(size.bytes, PREFIX_BYTES));
    await read(0, prefix);
    const json = new Uint8Array(headerLength(prefix, size.bytes, file));
    await read(8, json);
    const header = parseHeader(json, size.bytes, file);
    // The file is opened for each tensor anew, so nothing has to be closed; that it is still the same one is checked.
    return reader(file, size.bytes, header, (use) => withFile(file, size, (again) => use(rangeReader(again, file))));
  });
}

/** The same over bytes that are already in memory; `file` is the name for messages. */
export function parseSafetensors(bytes: Uint8Array, file: string): Safetensors {
  const length = headerLength(bytes.subarray(0, PREFIX_BYTES), bytes.length, file);
  const header = parseHeader(bytes.subarray(8, 8 + length), bytes.length, file);
  const read: ReadRange = async (position, into) => into.set(bytes.subarray(position, position + into.length));
  return reader(file, bytes.length, header, (use) => use(read));
}

function reader(
  file: string,
  fileBytes: number,
  header: Header,
  withRange: <T>(use: (read: ReadRange) => Promise<T>) => Promise<T>,
): Safetensors {
  const info = (name: string): TensorInfo => {
    const found = header.tensors.get(name);
    if (found === undefined) throw new FileError(file, `tensor ${quoted(name)}`, 'is not in the file');
    return found;
  };
  const numbers = async <A extends NumberArray>(name: string, make: new (length: number) => A): Promise<A> => {
    const tensor = info(name);
    const out = new make(elements(tensor));
    await withRange((read) =>
      readNumbers(read, tensor, out, (problem) => new FileError(file, `tensor ${quoted(name)}`, problem)),
    );
    return out;
  };
  const bytes = async (name: string): Promise<Uint8Array> => {
    const { begin, end } = info(name);
    const out = new Uint8Array(end - begin);
    await withRange((read) => read(begin, out));
    return out;
  };
  return {
    ...header,
    file,
    fileBytes,
    bytes,
    float32: (name) => numbers(name, Float32Array),
    float64: (name) => numbers(name, Float64Array),
    int32: (name) => numbers(name, Int32Array),
    half: async (name) => {
      const tensor = info(name);
      if (tensor.dtype === 'F16') return new Uint16Array((await bytes(name)).buffer);
      const out = new Uint16Array(elements(tensor));
      await withRange((read) =>
        readHalves(read, tensor, out, (problem) => new FileError(file, `tensor ${quoted(name)}`, problem)),
      );
      return out;
    },
  };
}

/** Number of values in a tensor. */
export function elements(info: Pick<TensorInfo, 'dtype' | 'begin' | 'end'>): number {
  return (info.end - info.begin) / DTYPE_BYTES[info.dtype];
}

async function readNumbers(
  read: ReadRange,
  { dtype, begin, end }: TensorInfo,
  out: NumberArray,
  fail: (problem: string) => Error,
): Promise<void> {
  const sameBytes =
    (dtype === 'F32' && out instanceof Float32Array) ||
    (dtype === 'F64' && out instanceof Float64Array) ||
    (dtype === 'I32' && out instanceof Int32Array);
  if (sameBytes) return read(begin, new Uint8Array(out.buffer));
  const buffer = new Uint8Array(Math.min(CHUNK_BYTES, end - begin));
  for (let at = begin; at < end; at += buffer.length) {
    const chunk = buffer.subarray(0, Math.min(buffer.length, end - at));
    await read(at, chunk);
    const problem = decodeInto(dtype, chunk, out, (at - begin) / DTYPE_BYTES[dtype]);
    if (problem !== undefined) throw fail(problem);
  }
}

/** Rounds to half floats chunk by chunk: a wide copy of the whole tensor never exists. */
async function readHalves(
  read: ReadRange,
  { dtype, begin, end }: TensorInfo,
  out: Uint16Array<ArrayBuffer>,
  fail: (problem: string) => Error,
): Promise<void> {
  const buffer = new Uint8Array(Math.min(CHUNK_BYTES, end - begin));
  const floats = new Float32Array(buffer.length / DTYPE_BYTES[dtype]);
  for (let [at, done] = [begin, 0]; at < end; at += buffer.length) {
    const chunk = buffer.subarray(0, Math.min(buffer.length, end - at));
    await read(at, chunk);
    const problem = decodeInto(dtype, chunk, floats, 0);
    if (problem !== undefined) throw fail(problem);
    const count = chunk.length / DTYPE_BYTES[dtype];
    floatToHalf(floats.subarray(0, count), out.subarray(done, done + count));
    done += count;
  }
}

type FileState = { readonly bytes: number; readonly modified: bigint; readonly inode: bigint };

/** Opens a regular file for the time of `use`. With `expected`, refuses a file that changed since. */
async function withFile<T>(
  file: string,
  expected: FileState | undefined,
  use: (handle: FileHandle, state: FileState) => Promise<T>,
): Promise<T> {
  let handle: FileHandle | undefined;
  try {
    // O_NONBLOCK, so that opening a pipe does not wait for a writer that never comes.
    handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const info = await handle.stat({ bigint: true });
    if (info.isDirectory()) throw new FileError(file, '', 'is a directory, a file was expected');
    if (!info.isFile()) throw new FileError(file, '', 'is not a regular file');
    const state = { bytes: Number(info.size), modified: info.mtimeNs, inode: info.ino };
    const changed =
      expected !== undefined &&
      (state.bytes !== expected.bytes || state.modified !== expected.modified || state.inode !== expected.inode);
    if (changed) throw new FileError(file, '', 'was changed while it was in use');
    return await use(handle, state);
  } catch (error) {
    throw asFileError(error, file);
  } finally {
    // Nothing was written: an error of close would only hide the answer.
    await handle?.close().catch(() => undefined);
  }
}

function rangeReader(handle: FileHandle, file: string): ReadRange {
  return async (position, into) => {
    for (let done = 0; done < into.length; ) {
      const { bytesRead } = await handle.read(into, done, Math.min(into.length - done, 1 << 30), position + done);
      if (bytesRead === 0) throw new FileError(file, '', 'became shorter while it was read');
      done += bytesRead;
    }
  };
}
