/**
 * Fused elementwise kernels: a cluster becomes one loop over its points, four neighbours at a time where the last axis
 * allows it. The loop bound and every size, stride and constant are uniforms.
 */
import { type Axis, collapse } from '../../compile/axes.ts';
import type { Cluster } from '../../compile/scalar.ts';
import { ceilDiv, createParams, type Kernel, makeKernel, overIndices, type Params } from './kernel.ts';
import { printCall, printCast, storageType, typeName, type Width } from './math.ts';
import type { AdapterClass } from './target.ts';

/** How one input is read at `width` neighbouring points of the last axis. */
type Access = 'one' | 'vector' | 'splat' | 'gather';

/** input → output that lies in the same buffer: WebGPU lets a kernel bind a written buffer only once */
export type InPlace = ReadonlyMap<number, number>;

export interface ClusterLoads {
  readonly reads: readonly { readonly name: string; readonly type: string }[];
  /** WGSL statements that compute every step at the point whose axis coordinates are `c0, c1, …` */
  readonly body: string;
  /** the value of a step after `body` */
  readonly value: (step: number) => string;
}

/**
 * Reads and steps of a cluster at one point (`width` 1) or at four neighbours along the last of `axes` (`width` 4, where
 * the last coordinate counts groups of four).
 * @param inPlace inputs that are read from the binding of an output instead of one of their own
 */
export const printSteps = (
  cluster: Cluster,
  axes: readonly Axis[],
  width: Width,
  params: Params,
  inPlace: InPlace = new Map(),
): ClusterLoads => {
  const last = axes.length - 1;
  const reads: { name: string; type: string }[] = [];
  const lines: string[] = [];
  cluster.inputs.forEach((input, i) => {
    const strides = axes.map((a) => a.strides[i]!);
    const inner = strides[last] ?? 0;
    const aligned = input.offset % 4 === 0 && strides.every((s, a) => a === last || s % 4 === 0);
    const access: Access = width === 1 ? 'one' : inner === 0 ? 'splat' : inner === 1 && aligned ? 'vector' : 'gather';
    const unit = access === 'vector' ? 4 : 1;
    const shared = inPlace.get(i);
    const name = shared === undefined ? `x${i}` : `y${shared}`;
    if (shared === undefined) reads.push({ name, type: storageType(input.dtype, access === 'vector' ? 4 : 1) });
    const terms = strides.flatMap((s, a) => {
      if (s === 0) return [];
      if (a !== last || width === 1) return [`c${a} * ${params.word(s / unit)}`];
      return [access === 'vector' ? `c${a}` : `c${a} * ${params.word(4 * s)}`];
    });
    lines.push(`let i${i} = ${[params.word(input.offset / unit), ...terms].join(' + ')};`);
    const at = (k: number) => (k === 0 ? `${name}[i${i}]` : `${name}[i${i} + ${k}u * s${i}]`);
    if (access === 'gather') lines.push(`let s${i} = ${params.word(inner)};`);
    const raw =
      access === 'one' || access === 'vector'
        ? at(0)
        : access === 'splat'
          ? `${storageType(input.dtype, 4)}(${at(0)})`
          : `${storageType(input.dtype, 4)}(${[0, 1, 2, 3].map(at).join(', ')})`;
    lines.push(`let l${i} = ${input.dtype === 'bool' ? `(${raw} != ${storageType('bool', width)}(0u))` : raw};`);
  });
  const value = (step: number) => `t${step}`;
  cluster.steps.forEach((step, s) => {
    let text: string;
    if (step.kind === 'load') text = `l${step.input}`;
    else if (step.kind === 'const') {
      const one = step.dtype === 'f32' ? params.float(step.value) : params.word(step.value);
      const typed = step.dtype === 'i32' ? `bitcast<i32>(${one})` : step.dtype === 'bool' ? `(${one} != 0u)` : one;
      text = `${typeName(step.dtype, width)}(${typed})`;
    } else if (step.kind === 'iota') {
      const axis = axes.findIndex((a) => a.iota === step.axis);
      const type = typeName(step.dtype, width);
      if (axis < 0) text = `${type}(0)`;
      else if (width === 4 && axis === last) text = `${type}(vec4(4u * c${axis}) + vec4(0u, 1u, 2u, 3u))`;
      else text = width === 4 ? `${type}(vec4(c${axis}))` : `${type}(c${axis})`;
    } else {
      const operands = step.args.map((a) => cluster.steps[a]!.dtype);
      text = step.converts
        ? printCast(value(step.args[0]!), operands[0]!, step.dtype, width)
        : printCall(step.fn, step.args.map(value), operands[0]!, width);
    }
    lines.push(`let ${value(s)} = ${text};`);
  });
  return { reads, body: lines.join('\n    '), value };
};

/** `let c… = …` for the coordinates `names` of a flat index, the last running fastest. The first takes what is left. */
export const printCoordinates = (
  index: string,
  names: readonly string[],
  sizes: readonly number[],
  params: Params,
): string => {
  if (names.length === 0) return '';
  if (names.length === 1) return `let ${names[0]} = ${index};`;
  const lines = [`var rest = ${index};`];
  for (let a = names.length - 1; a > 0; a--) {
    const size = params.word(sizes[a]!);
    lines.push(`let next${a} = rest / ${size}; let ${names[a]} = rest - next${a} * ${size}; rest = next${a};`);
  }
  lines.push(`let ${names[0]} = rest;`);
  return lines.join('\n    ');
};

/** The text that stores value `text` of a step as an element of `dtype`. */
export const stored = (text: string, dtype: Cluster['steps'][number]['dtype'], width: Width): string =>
  dtype === 'bool' ? `select(${storageType('bool', width)}(0u), ${storageType('bool', width)}(1u), ${text})` : text;

/**
 * Kernel of a cluster without reduction. Cost: one read per input element, one write per output element.
 * Buffers must be padded to 16 bytes: a flat space whose size is no multiple of 4 is written past its end.
 */
export const printElementwise = (cluster: Cluster, adapter: AdapterClass, inPlace?: InPlace): Kernel => {
  const axes = collapse(cluster);
  const last = axes[axes.length - 1];
  const width: Width = last && (last.size % 4 === 0 || axes.length === 1) ? 4 : 1;
  const sizes = axes.map((a, i) => (width === 4 && i === axes.length - 1 ? ceilDiv(a.size, 4) : a.size));
  const points = cluster.shape.includes(0) ? 0 : sizes.reduce((a, b) => a * b, 1);
  const params = createParams();
  const coordinates = printCoordinates(
    'i',
    axes.map((_, a) => `c${a}`),
    sizes,
    params,
  );
  const { reads, body, value } = printSteps(cluster, axes, width, params, inPlace);
  const writes = cluster.outputs.map((s, o) => ({ name: `y${o}`, type: storageType(cluster.steps[s]!.dtype, width) }));
  const stores = cluster.outputs.map((s, o) => `y${o}[i] = ${stored(value(s), cluster.steps[s]!.dtype, width)};`);
  const { code, groups } = overIndices(adapter, points, params, [coordinates, body, ...stores].join('\n    '));
  return makeKernel('elementwise', params, reads, writes, groups, code);
};
