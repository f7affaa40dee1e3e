/** Element types. One table row per dtype: everything a backend or a file needs to know about it. */
export type DType = 'f32' | 'f64' | 'f16' | 'i32' | 'u32' | 'bool';

/** Host storage of a dtype. `bool` is kept as 0/1 in 32 bits so that every GPU can address it. */
export type HostArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint16Array;

export const dtypes = {
  f32: { bytes: 4, float: true, alloc: (n: number): HostArray => new Float32Array(n) },
  f64: { bytes: 8, float: true, alloc: (n: number): HostArray => new Float64Array(n) },
  // storage of frozen weights only, as bit patterns: no arithmetic and no derivatives (ops/half.ts)
  f16: { bytes: 2, float: false, alloc: (n: number): HostArray => new Uint16Array(n) },
  i32: { bytes: 4, float: false, alloc: (n: number): HostArray => new Int32Array(n) },
  u32: { bytes: 4, float: false, alloc: (n: number): HostArray => new Uint32Array(n) },
  bool: { bytes: 4, float: false, alloc: (n: number): HostArray => new Uint32Array(n) },
} as const satisfies Record<DType, { bytes: number; float: boolean; alloc: (n: number) => HostArray }>;

export const isFloat = (d: DType): boolean => dtypes[d].float;
export const bytesOf = (d: DType, elements: number): number => dtypes[d].bytes * elements;
