/**
 * What every kernel of this backend is: WGSL text plus the numbers of one application of it. The text holds no sizes, so
 * one pipeline serves all shapes of its kind; sizes, strides and constants travel in a small uniform block.
 */

import { helperText } from './math.ts';
import type { AdapterClass } from './target.ts';

export interface Kernel {
  readonly name: string;
  readonly code: string;
  /** the uniform block, 32-bit words */
  readonly params: Uint32Array;
  readonly groups: readonly [number, number, number];
  /** bindings 1…reads are read-only, the next `writes` are written (binding 0 is the uniform block) */
  readonly reads: number;
  readonly writes: number;
}

/** Collects the words of a uniform block and names their places in WGSL. */
export interface Params {
  /** appends an unsigned or two's-complement word; returns its WGSL expression (u32) */
  word(value: number): string;
  /** appends a float; returns its WGSL expression (f32) */
  float(value: number): string;
  /** the words so far */
  words(): Uint32Array;
}

const bits = new DataView(new ArrayBuffer(4));
export const floatBits = (value: number): number => {
  bits.setFloat32(0, value);
  return bits.getUint32(0);
};

export const createParams = (): Params => {
  const values: number[] = [];
  const word = (value: number) => {
    values.push(value);
    const at = values.length - 1;
    return `p[${at >> 2}].${'xyzw'[at & 3]}`;
  };
  return {
    word,
    float: (value) => `bitcast<f32>(${word(floatBits(value))})`,
    words: () =>
      Uint32Array.from({ length: Math.max(4, Math.ceil(values.length / 4) * 4) }, (_, i) => (values[i] ?? 0) >>> 0),
  };
};

/** A storage binding: its name in WGSL and the type of its elements. */
export interface Binding {
  readonly name: string;
  readonly type: string;
}
/** The kernel of a body: declarations of its bindings and helpers come before it, `first` (what it enables) before all. */
export const makeKernel = (
  name: string,
  params: Params,
  reads: readonly Binding[],
  writes: readonly Binding[],
  groups: Kernel['groups'],
  body: string,
  first = '',
): Kernel => {
  const words = params.words();
  const declare = (access: string, from: number) => (b: Binding, i: number) =>
    `@group(0) @binding(${from + i}) var<storage, ${access}> ${b.name}: array<${b.type}>;\n`;
  const code = [
    `${first}@group(0) @binding(0) var<uniform> p: array<vec4<u32>, ${words.length / 4}>;\n`,
    ...reads.map(declare('read', 1)),
    ...writes.map(declare('read_write', 1 + reads.length)),
    helperText(body),
    body,
  ].join('');
  return { name, code, params: words, groups, reads: reads.length, writes: writes.length };
};

export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

/** Workgroup counts for `n` groups: at most 65,535 per dimension; kernels rebuild the index as `x + y·65535`. */
export const MAX_GROUPS = 65535;
export const spreadGroups = (n: number, layers: number): Kernel['groups'] => [
  Math.min(n, MAX_GROUPS),
  ceilDiv(n, MAX_GROUPS),
  layers,
];

/**
 * Workgroups of a grid of three axes, and the text that makes `id` of the builtin `place`. Where an axis is longer than a
 * dimension may be, all are counted along x and y and taken apart again.
 */
export const gridOf = (
  sizes: readonly [number, number, number],
  params: Params,
): { readonly groups: Kernel['groups']; readonly id: string } => {
  if (sizes.every((n) => n <= MAX_GROUPS)) return { groups: sizes, id: 'let id = place;' };
  const [nx, ny, nz] = sizes.map((n) => params.word(n)) as [string, string, string];
  return {
    groups: spreadGroups(sizes[0] * sizes[1] * sizes[2], 1),
    id: `let flat = place.x + place.y * ${MAX_GROUPS}u;
  let id = vec3<u32>(flat % ${nx}, flat / ${nx} % ${ny}, flat / (${nx} * ${ny}));
  if (id.z >= ${nz}) { return; }`,
  };
};

/** Threads of one workgroup, and how many workgroups share a loop at most: software drivers have few cores. */
const spread: Readonly<Record<AdapterClass, { readonly threads: number; readonly most: number }>> = {
  cpu: { threads: 64, most: 256 },
  gpu: { threads: 128, most: 16384 },
};
/**
 * An entry point that runs `body` for every `i` in [0, count). On GPUs neighbouring threads of all groups take neighbours
 * and jump together; on software drivers a group, which is one core's work, walks a stretch of its own (3 times as fast).
 */
export const overIndices = (adapter: AdapterClass, count: number, params: Params, body: string) => {
  const { threads, most } = spread[adapter];
  const groups = Math.min(most, ceilDiv(count, threads));
  const bound = params.word(count);
  const loop =
    adapter === 'gpu'
      ? `for (var i = group.x * ${threads}u + local.x; i < ${bound}; i += ${params.word(groups * threads)})`
      : `let stretch = ${params.word(groups === 0 ? 0 : ceilDiv(ceilDiv(count, groups), threads) * threads)};
  for (var i = group.x * stretch + local.x; i < min(${bound}, (group.x + 1u) * stretch); i += ${threads}u)`;
  const code = `@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  ${loop} {
    ${body}
  }
}
`;
  return { code, groups: [groups, 1, 1] as const };
};

/** Where a binding of a kernel comes from when an op needs more than one kernel. */
export interface Operand {
  readonly from: 'input' | 'output' | 'scratch';
  readonly index: number;
}
/** The kernels of one op in order, with the bytes of the scratch buffers between them. */
export interface Recipe {
  readonly launches: readonly { readonly kernel: Kernel; readonly operands: readonly Operand[] }[];
  readonly scratch: readonly number[];
}

export const input = (index: number): Operand => ({ from: 'input', index });
export const output = (index: number): Operand => ({ from: 'output', index });
/** the first scratch buffer; few ops need a second */
export const scratch: Operand = { from: 'scratch', index: 0 };

/** The recipe of an op that is one kernel reading its inputs and writing its outputs in order. */
export const single = (kernel: Kernel): Recipe => ({
  launches: [{ kernel, operands: [...range(kernel.reads).map(input), ...range(kernel.writes).map(output)] }],
  scratch: [],
});
