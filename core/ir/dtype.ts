/** Element types. One table row per dtype: everything a backend or a file needs to know about it. */

import { nf4Words } from './nf4.ts';

/** Host storage: one of these for every dtype. */
export type HostArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint16Array;

interface Row {
  /** of an entry of the host array */
  readonly bytes: number;
  /** entries of the host array that so many elements take, where that is not one each: elements have no place of their own */
  readonly entries?: (elements: number) => number;
  readonly float: boolean;
  /** host array of values, or of bit patterns for stored types */
  readonly array: HostArrayConstructor;
  /** the nearest value an element holds; integers towards zero, as `cast` does */
  readonly round: (x: number) => number;
  /**
   * A type for the storage of frozen weights, as bit patterns made on the host: no arithmetic, no derivatives. Ops take it
   * as views or through the op named here, which makes f32 of it (ops/stored.ts).
   */
  readonly widenedBy?: string;
}

interface HostArrayConstructor {
  new (elements: number): HostArray;
  new (buffer: ArrayBufferLike, offset: number, elements: number): HostArray;
  readonly name: string;
}

const itself = (x: number): number => x;
// `bool` is kept as 0/1 in 32 bits so that every GPU can address it
export const dtypes = {
  f32: { bytes: 4, float: true, array: Float32Array, round: Math.fround },
  f64: { bytes: 8, float: true, array: Float64Array, round: itself },
  f16: { bytes: 2, float: false, array: Uint16Array, round: itself, widenedBy: 'fromHalf' },
  i32: { bytes: 4, float: false, array: Int32Array, round: (x) => x | 0 },
  u32: { bytes: 4, float: false, array: Uint32Array, round: (x) => x >>> 0 },
  bool: { bytes: 4, float: false, array: Uint32Array, round: (x) => (x ? 1 : 0) },
  nf4: { bytes: 4, float: false, array: Uint32Array, round: itself, widenedBy: 'fromNf4', entries: nf4Words },
} as const satisfies { readonly [dtype: string]: Row };

type Rows = typeof dtypes;
/** Element types of tensors: the rows of `dtypes`. */
export type DType = keyof Rows;
/** the dtypes that are for storage only */
export type StoredDType = { [D in DType]: Rows[D] extends { widenedBy: string } ? D : never }[DType];

/** the least number of a dtype: the maximum over nothing */
export const lowest = (d: DType): number => (d === 'i32' ? -(2 ** 31) : isFloat(d) ? Number.NEGATIVE_INFINITY : 0);
/** the greatest number of a dtype */
export const highest = (d: DType): number =>
  isFloat(d) ? Number.POSITIVE_INFINITY : d === 'i32' ? 2 ** 31 - 1 : d === 'u32' ? 2 ** 32 - 1 : 1;
export const isFloat = (d: DType): boolean => dtypes[d].float;
export const isStored = (d: DType): d is StoredDType => 'widenedBy' in dtypes[d];
/** stored types whose elements share entries: a copy in another order would have to be packed anew */
export const isPacked = (d: DType): boolean => 'entries' in dtypes[d];
/** length of the host array of so many elements */
export const entriesOf = (d: DType, elements: number): number => (dtypes[d] as Row).entries?.(elements) ?? elements;
/** bytes that so many entries of a host array take */
export const entryBytes = (d: DType, entries: number): number => dtypes[d].bytes * entries;
export const bytesOf = (d: DType, elements: number): number => entryBytes(d, entriesOf(d, elements));
/** where an element begins; 0 in packed types, whose kernels go by the element's number */
export const byteOffset = (d: DType, element: number): number => (isPacked(d) ? 0 : dtypes[d].bytes * element);
/** zeros */
export const allocate = (d: DType, elements: number): HostArray => new dtypes[d].array(entriesOf(d, elements));
/** the entries that begin at a byte of a buffer */
export const valuesAt = (d: DType, buffer: ArrayBufferLike, offset: number, entries: number): HostArray =>
  new dtypes[d].array(buffer as ArrayBuffer, offset, entries);
