/** A graph as text, in let-form: what a function computes, with shapes and costs, before anything is compiled. */

import { dtypes } from './dtype.ts';
import { head, type Op, type Tensor, topo } from './tensor.ts';
import { entries, isTensor, type Tree } from './tree.ts';
import { sizeOf } from './view.ts';

const formOf = (op: Op): string => (op.kind === 'primitive' ? op.form.kind : 'composite');
const typeOf = (t: Tensor): string => `${t.dtype}[${t.shape.join(', ')}]`;

/** `2.4 GF`: three digits and a unit of a thousand. */
export function quantity(n: number, unit: string): string {
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P'];
  const step = Math.min(prefixes.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(n, 1)) / 3)));
  return `${Number((n / 1000 ** step).toPrecision(3))} ${prefixes[step]}${unit}`;
}

/** Attributes that can be written down; a closed body is named by its size. */
function attrsOf(node: Tensor): string {
  const parts = Object.entries(node.attrs).flatMap(([name, x]: [string, unknown]): string[] => {
    // the shape and dtype of a source are those of its result
    if (node.inputs.length === 0 && (name === 'shape' || name === 'dtype' || name === 'storage')) return [];
    if (Array.isArray(x) && x.length > 0 && x.every(isTensor)) return [`${name}: ${topo(x).length} nodes`];
    if (typeof x === 'number') return [`${name}: ${Object.is(x, -0) ? '-0' : x}`];
    return [`${name}: ${JSON.stringify(x)?.replaceAll('"', '').replaceAll(',', ', ')}`];
  });
  return parts.length > 0 ? ` {${parts.join(', ')}}` : '';
}

/** Floating-point operations and least bytes moved; nothing for views, sources and leaves, which cost nothing. */
function costOf(node: Tensor): { readonly flops: number; readonly bytes: number } | undefined {
  if (['layout', 'identity', 'fill', 'leaf'].includes(formOf(node.op))) return undefined;
  const flops = node.op.flops?.(node.inputs, node.attrs as never) ?? 0;
  const bytes = [...node.inputs, ...node.outs].reduce((n, t) => n + sizeOf(t.shape) * dtypes[t.dtype].bytes, 0);
  return { flops, bytes };
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
  const outputs = entries<Tensor>(tree);
  const names = new Map<Tensor, string>();
  const total = { nodes: 0, flops: 0 };
  const lines: string[] = [];
  for (const node of topo(outputs.map(([, t]) => t))) {
    for (const out of node.outs) names.set(out, `%${names.size}`);
    const cost = costOf(node);
    total.nodes++;
    total.flops += cost?.flops ?? 0;
    const results = node.outs.map((t) => names.get(t)).join(', ');
    const operands = node.inputs.map((t) => ` ${names.get(t)}`).join('');
    const label = head(node).label ? `   ${head(node).label}` : '';
    const price = cost
      ? `   ${cost.flops > 0 ? `${quantity(cost.flops, 'F')}  ` : ''}${quantity(cost.bytes, 'B')}`
      : '';
    lines.push(
      `${results}: ${node.outs.map(typeOf).join(', ')} = ${node.op.name}${operands}${attrsOf(node)}${label}${price}`,
    );
  }
  for (const [path, t] of outputs) lines.push(`→ ${path === '' ? '' : `${path} = `}${names.get(t)}`);
  lines.push(`${total.nodes} nodes, ${quantity(total.flops, 'F')}`);
  return lines.join('\n');
}
