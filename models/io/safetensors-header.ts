/**
 * The header of a safetensors file: `u64 length | JSON | data`, validated by every rule of the format.
 * A file that passes describes its data completely: no holes, no overlaps, nothing before, nothing behind.
 * Source: the safetensors format description and its reference reader; unlike the latter, duplicate names are refused.
 */
import { DTYPE_BYTES, type FileDType, isFileDType } from './dtypes.ts';
import { FileError, quoted } from './error.ts';
import { type Json, parseJson } from './json.ts';

/** Where a tensor lies in its file, and what it is. */
export type TensorInfo = {
  /** The type its bytes have. */
  readonly dtype: FileDType;
  /** The size of each axis. */
  readonly shape: readonly number[];
  /** Offset of the first byte, counted from the start of the file. */
  readonly begin: number;
  /** Offset behind the last byte. */
  readonly end: number;
};

export type Header = {
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
};

/** The format's own limit. */
export const MAX_HEADER = 100_000_000;

/** How many leading bytes `headerLength` wants to see (fewer where the file is shorter). */
export const PREFIX_BYTES = 64;

const CONVERT =
  'pickled weights are never opened; convert them once with PyTorch: python -c "import torch, safetensors.torch as s; ' +
  "d = torch.load('IN', map_location='cpu', weights_only=True); d = d.get('state_dict', d); " +
  "s.save_file({k: v.contiguous().clone() for k, v in d.items() if hasattr(v, 'contiguous')}, 'OUT.safetensors')\"";

/** How to turn a pickle into safetensors, as a command for another machine. */
export function conversionHint(input: string): string {
  return CONVERT.replace('IN', input.replace(/["'$`\\]/g, '?')).replace(
    'OUT',
    input.replace(/\.[^.]*$/, '').replace(/["'$`\\]/g, '?'),
  );
}

/**
 * Length of the JSON header from the file's first bytes, checked before anything is allocated.
 * @param prefix the first PREFIX_BYTES bytes of the file
 * @throws FileError also for what people take for safetensors: Git LFS pointers, zip and pickle files
 */
export function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  const start = String.fromCharCode(...prefix.subarray(0, 24));
  if (start.startsWith('version https://git-lfs')) {
    throw new FileError(file, 'header', 'is a Git LFS pointer, not the weights; fetch them with: git lfs pull');
  }
  if (start.startsWith('PK\u0003\u0004')) {
    throw new FileError(
      file,
      'header',
      `is a zip archive, as torch.save writes, not safetensors; ${conversionHint(file)}`,
    );
  }
  if (fileBytes < 8) {
    throw new FileError(file, 'header', `the file is too short: ${fileBytes} bytes, a header length alone takes 8`);
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > MAX_HEADER) {
    throw new FileError(
      file,
      'header',
      `length ${length} is above the format's limit of ${MAX_HEADER} bytes: damaged, or no safetensors file`,
    );
  }
  if (Number(length) > fileBytes - 8) {
    throw new FileError(file, 'header', `length ${length} does not fit into a file of ${fileBytes} bytes (truncated?)`);
  }
  if (length === 0n) throw new FileError(file, 'header', 'length is 0');
  return Number(length);
}

/**
 * Parses and validates the JSON header.
 * @param json the header's bytes; the data follows them up to `fileBytes`
 * @throws FileError naming the tensor and its field. Cost: linear in the header, n log n in the tensors.
 */
export function parseHeader(json: Uint8Array, fileBytes: number, file: string): Header {
  const root = parseJson(decode(json, file), file, { field: 'header', digitsOnly: isIntegerField });
  if (!isRecord(root)) throw new FileError(file, 'header', 'must be a JSON object');
  const dataStart = 8 + json.length;
  const metadata = new Map<string, string>();
  const infos: (readonly [string, TensorInfo])[] = [];
  for (const [name, value] of Object.entries(root)) {
    if (/\p{Surrogate}/u.test(name)) throw new FileError(file, quoted(name), 'the name is not well-formed Unicode');
    if (name === '__metadata__') {
      for (const [key, text] of metadataEntries(value, file)) metadata.set(key, text);
    } else {
      infos.push([name, tensorInfo(name, value, dataStart, file)]);
    }
  }
  infos.sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  checkCover(infos, dataStart, fileBytes, file);
  return { metadata, tensors: new Map(infos) };
}

function decode(json: Uint8Array, file: string): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    throw new FileError(file, 'header', 'is not UTF-8 text');
  }
  if (text[0] !== '{') throw new FileError(file, 'header', 'is not JSON: it must begin with {');
  return text;
}

/** `name.shape` and `name.data_offsets`: only digits there, since `16.0` and `-0` are integers to JSON.parse. */
function isIntegerField(path: readonly string[]): boolean {
  const field = path[path.length - 1];
  return path.length === 2 && path[0] !== '__metadata__' && (field === 'shape' || field === 'data_offsets');
}

function isRecord(value: Json | undefined): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function metadataEntries(value: Json, file: string): readonly (readonly [string, string])[] {
  if (!isRecord(value)) throw new FileError(file, '__metadata__', 'must be an object of strings');
  return Object.entries(value).map(([key, text]) => {
    if (typeof text !== 'string') throw new FileError(file, `__metadata__.${key}`, 'must be a string');
    if (/\p{Surrogate}/u.test(key + text))
      throw new FileError(file, `__metadata__.${key}`, 'is not well-formed Unicode');
    return [key, text] as const;
  });
}

/** One entry of the header; offsets are moved to the start of the file. */
function tensorInfo(name: string, value: Json, dataStart: number, file: string): TensorInfo {
  const fail = (field: string, problem: string) => new FileError(file, `tensor ${quoted(name)}${field}`, problem);
  if (!isRecord(value)) throw fail('', 'must be an object with dtype, shape and data_offsets');
  for (const key of ['dtype', 'shape', 'data_offsets']) {
    if (!Object.hasOwn(value, key)) throw fail('', `has no ${key}`);
  }
  const { dtype, shape, data_offsets: offsets } = value;
  if (!isFileDType(dtype)) {
    throw fail(': dtype', `is ${show(dtype)}, expected one of ${Object.keys(DTYPE_BYTES).join(' ')}`);
  }
  if (!isIntegers(shape)) throw fail(': shape', `is ${show(shape)}, expected a list of non-negative integers`);
  if (!isIntegers(offsets) || offsets.length !== 2 || offsets[0] > offsets[1]) {
    throw fail(': data_offsets', `is ${show(offsets)}, expected [begin, end] with 0 ≤ begin ≤ end`);
  }
  // BigInt: [2³², 2³²] is 2⁶⁴, which is 0 in 64-bit arithmetic and inexact in doubles.
  let elements = 1n;
  for (const size of shape) {
    elements *= BigInt(size);
    if (elements >= 1n << 64n) throw fail(': shape', `${show(shape)} overflows 64 bits`);
  }
  const bytes = elements * BigInt(DTYPE_BYTES[dtype]);
  const [begin, end] = offsets;
  if (bytes !== BigInt(end - begin)) {
    throw fail('', `shape ${show(shape)} of ${dtype} takes ${bytes} bytes, data_offsets cover ${end - begin}`);
  }
  return { dtype, shape, begin: dataStart + begin, end: dataStart + end };
}

function isIntegers(value: Json): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function show(value: Json): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** The tensors, sorted by position, must cover the data exactly once. */
function checkCover(
  infos: readonly (readonly [string, TensorInfo])[],
  dataStart: number,
  fileBytes: number,
  file: string,
): void {
  let covered = dataStart;
  for (const [name, { begin, end }] of infos) {
    const field = `tensor ${quoted(name)}: data_offsets`;
    if (begin < covered) throw new FileError(file, field, `begins ${covered - begin} bytes inside the tensor before`);
    if (begin > covered) throw new FileError(file, field, `leaves a hole of ${begin - covered} bytes before it`);
    if (end > fileBytes) {
      throw new FileError(file, field, `reaches ${end - fileBytes} bytes past the end of the file (truncated?)`);
    }
    covered = end;
  }
  if (covered !== fileBytes) {
    throw new FileError(file, 'data_offsets', `${fileBytes - covered} trailing bytes belong to no tensor`);
  }
}
