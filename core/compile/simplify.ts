/**
 * Graph → smaller graph: inlines composites the backend has no kernel for, drops identities, merges equal nodes (CSE)
 * and leaves out what no result needs (DCE). Reads records' fields only; names no op.
 */

import { type Composite, head, type Op, rebind, type Tensor, topo } from '../ir/tensor.ts';
import { full } from '../ops/fill.ts';

const isComposite = (op: Op): boolean => op.kind === 'composite';
const isLeaf = (t: Tensor): boolean => t.op.kind === 'primitive' && t.op.form.kind === 'leaf';

/** single identities vanish; those with several operands (barriers) stay until lowering, or CSE would undo them */
const isIdentity = (t: Tensor): boolean => t.op.kind === 'primitive' && t.op.form.kind === 'identity';

/** numbers JSON would lose: infinities, NaN, −0 */
const exact = (_key: string, x: unknown): unknown =>
  typeof x === 'number' && (!Number.isFinite(x) || Object.is(x, -0)) ? `${Object.is(x, -0) ? '-0' : x}` : x;

/** attributes as text; most ops have none */
const textOf = (attrs: object): string => (Object.keys(attrs).length === 0 ? '' : JSON.stringify(attrs, exact));

export function simplify(outputs: readonly Tensor[], hasKernel: (op: Op) => boolean): Tensor[] {
  const env = new Map<Tensor, Tensor>();
  const made = new Map<string, Tensor>();
  /** nodes already in their final form */
  const done = new Set<Tensor>();

  const visit = (roots: readonly Tensor[]): void => {
    for (const node of topo(roots)) {
      if (env.has(node) || done.has(node)) continue;
      if (isLeaf(node)) {
        done.add(node);
        continue;
      }
      const inputs = node.inputs.map((x) => env.get(x) ?? x);
      const outs = place(node, inputs);
      for (const [i, o] of node.outs.entries()) env.set(o, outs[i]!);
    }
  };

  const place = (node: Tensor, inputs: readonly Tensor[]): readonly Tensor[] => {
    const empty = inputs.some((x) => x.shape.includes(0));
    if (isComposite(node.op) && (empty || !hasKernel(node.op))) {
      const outs = (node.op as Composite).body(inputs, node.attrs);
      visit(outs);
      return outs.map((o) => env.get(o) ?? o);
    }
    if (empty && node.op.kind === 'primitive' && node.op.whenEmpty) {
      const value = node.op.whenEmpty(node.attrs as never);
      const outs = node.outs.map((o) => full(o.shape, value, o.dtype));
      for (const o of outs) done.add(o);
      return outs;
    }
    if (isIdentity(node)) {
      if (inputs.length === 1) return inputs;
      const outs = rebind(node, inputs);
      done.add(outs[0]!);
      return outs;
    }
    const key = `${node.op.name}|${textOf(node.attrs)}|${inputs.map((x) => `${x.id}.${x.index}`).join()}`;
    const known = made.get(key);
    if (known) return known.outs;
    const outs = inputs.every((x, i) => x === node.inputs[i]) ? node.outs : rebind(node, inputs);
    made.set(key, outs[0]!);
    done.add(head(outs[0]!));
    return outs;
  };

  visit(outputs);
  return outputs.map((o) => env.get(o) ?? o);
}
