/** A graph as text, in let-form, or as plain data: what a function computes, with shapes and costs, before anything is compiled. */

import { bytesOf, type DType } from './dtype.ts';
import { head, type Op, type Shape, type Tensor, topo } from './tensor.ts';
import { entries, isTensor, type Tree } from './tree.ts';
import { sizeOf } from './view.ts';

const formOf = (op: Op): string => (op.kind === 'primitive' ? op.form.kind : 'composite');
const typeOf = (t: { readonly dtype: DType; readonly shape: Shape }): string => `${t.dtype}[${t.shape.join(', ')}]`;

/** `2.4 GF`: three digits and a unit of a thousand. */
export function quantity(n: number, unit: string): string {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P'];
  const step = Math.min(prefixes.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(n, 1)) / 3)));
  return `${Number((n / 1000 ** step).toPrecision(3))} ${prefixes[step]}${unit}`;
}

/** Attributes that can be written down; a closed body is named by its size, a function left out. */
function attrsOf(node: Tensor): Record<string, unknown> {
  const parts = Object.entries(node.attrs).flatMap(([name, x]: [string, unknown]): [string, unknown][] => {
    // the shape and dtype of a source are those of its result
    if (node.inputs.length === 0 && (name === 'shape' || name === 'dtype' || name === 'storage')) return [];
    if (typeof x === 'function') return [];
    if (Array.isArray(x) && x.length > 0 && x.every(isTensor)) return [[name, `${topo(x).length} nodes`]];
    // JSON has no numbers for these
    if (typeof x === 'number' && (!Number.isFinite(x) || Object.is(x, -0)))
      return [[name, Object.is(x, -0) ? '-0' : String(x)]];
    return [[name, x]];
  });
  return Object.fromEntries(parts);
}
function attrsText(attrs: Readonly<Record<string, unknown>>): string {
  const parts = Object.entries(attrs).map(
    ([name, x]) => `${name}: ${JSON.stringify(x)?.replaceAll('"', '').replaceAll(',', ', ')}`,
  );
  return parts.length > 0 ? ` {${parts.join(', ')}}` : '';
}

/** Floating-point operations and least bytes moved; nothing for views, sources and leaves, which cost nothing. */
function costOf(node: Tensor): { readonly flops: number; readonly bytes: number } | undefined {
  if (['layout', 'identity', 'fill', 'leaf'].includes(formOf(node.op))) return undefined;
  const flops = node.op.flops?.(node.inputs, node.attrs as never) ?? 0;
  const bytes = [...node.inputs, ...node.outs].reduce((n, t) => n + bytesOf(t.dtype, sizeOf(t.shape)), 0);
  return { flops, bytes };
}

/** One node of a graph as plain data. Values are named by numbers, in the order of `print`. */
export interface GraphNode {
  /** the op's name */
  readonly op: string;
  /** how the compiler treats it (`Form`) */
  readonly form: string;
  /** the values it reads */
  readonly inputs: readonly number[];
  /** the values it makes */
  readonly outs: readonly { readonly id: number; readonly dtype: DType; readonly shape: Shape }[];
  /** what the op was told beside its inputs */
  readonly attrs: Readonly<Record<string, unknown>>;
  /** a parameter's path, an argument's position */
  readonly label?: string;
  /** floating-point operations, where it computes */
  readonly flops?: number;
  /** bytes read and written at least, where it computes */
  readonly bytes?: number;
}
/** A graph as plain data: nodes, inputs first, and the value of each path of the tree. */
export interface GraphData {
  /** inputs first */
  readonly nodes: readonly GraphNode[];
  /** the value at each path of the tree */
  readonly outputs: readonly { readonly path: string; readonly id: number }[];
  /** those of all nodes together */
  readonly flops: number;
}
/**
 * `toGraph(tree)`: every node below the tensors of a tree as plain data, for JSON and for tools that draw; the same that
 * `print` shows. Costs one visit per node; computes nothing.
 * @example JSON.stringify(toGraph(grad(loss)(params)))
 */
export function toGraph(tree: Tree<Tensor>): GraphData {
  const outputs = entries<Tensor>(tree);
  const ids = new Map<Tensor, number>();
  let flops = 0;
  const nodes = topo(outputs.map(([, t]) => t)).map((node): GraphNode => {
    for (const out of node.outs) ids.set(out, ids.size);
    const cost = costOf(node);
    flops += cost?.flops ?? 0;
    return {
      op: node.op.name,
      form: formOf(node.op),
      inputs: node.inputs.map((x) => ids.get(x)!),
      outs: node.outs.map((o) => ({ id: ids.get(o)!, dtype: o.dtype, shape: o.shape })),
      attrs: attrsOf(node),
      ...(head(node).label === undefined ? {} : { label: head(node).label! }),
      ...cost,
    };
  });
  return { nodes, outputs: outputs.map(([path, t]) => ({ path, id: ids.get(t)! })), flops };
}

/**
 * `print(tree)`: every node below the tensors of a tree in let-form, one a line, inputs first; numbers count nodes in
 * that order. Costs one visit per node; computes nothing.
 *
 *   %2: f32[1, 2, 5] = dot %0 %1   60 F  124 B
 *
 * @example console.log(print(grad(loss)(params)));
 */
export function print(tree: Tree<Tensor>): string {
  const { nodes, outputs, flops: total } = toGraph(tree);
  const lines = nodes.map(({ op, inputs, outs, attrs, label, flops = 0, bytes }) => {
    const price =
      bytes === undefined ? '' : `   ${flops > 0 ? `${quantity(flops, 'F')}  ` : ''}${quantity(bytes, 'B')}`;
    const results = outs.map((o) => `%${o.id}`).join(', ');
    const operands = inputs.map((x) => ` %${x}`).join('');
    const name = label ? `   ${label}` : '';
    return `${results}: ${outs.map(typeOf).join(', ')} = ${op}${operands}${attrsText(attrs)}${name}${price}`;
  });
  for (const { path, id } of outputs) lines.push(`→ ${path === '' ? '' : `${path} = `}%${id}`);
  lines.push(`${nodes.length} nodes, ${quantity(total, 'F')}`);
  return lines.join('\n');
}
