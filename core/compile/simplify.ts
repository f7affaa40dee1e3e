/**
 * Graph → smaller graph: inlines composites the backend has no kernel for, drops identities and what a neutral constant
 * does (x·1), merges equal nodes (CSE) and leaves out what no result needs (DCE). Reads records' fields only; names no op.
 */

import { type Composite, head, isLeaf, type Op, rename, type Tensor, topo } from '../ir/tensor.ts';
import { isNode } from '../ir/tree.ts';
import { full } from '../ops/fill.ts';

const isComposite = (op: Op): boolean => op.kind === 'composite';

/** single identities vanish; those with several operands (barriers) stay until lowering, or CSE would undo them */
const isIdentity = (t: Tensor): boolean => t.op.kind === 'primitive' && t.op.form.kind === 'identity';

/** the number that t is everywhere, whatever layout it was given */
function constantOf(t: Tensor): number | undefined {
  let source = t;
  while (source.op.kind === 'primitive' && source.op.form.kind === 'layout') source = source.inputs[0]!;
  if (source.op.kind !== 'primitive' || source.op.form.kind !== 'fill') return undefined;
  const fill = source.op.form.at(source.attrs as never);
  return 'value' in fill ? fill.value : undefined;
}
/** the operand that the result is, where the other is a constant neutral to this op */
function unchanged({ op }: Tensor, inputs: readonly Tensor[]): Tensor | undefined {
  if (op.kind !== 'primitive' || op.form.kind !== 'elementwise') return undefined;
  const at = op.form.neutral?.findIndex((value, i) => value !== undefined && Object.is(constantOf(inputs[i]!), value));
  return at === undefined || at < 0 ? undefined : inputs[1 - at];
}

/** 32 bits of plain values and records and arrays of them, mixed into other bits; anything else counts as nothing */
function hash(bits: number, x: unknown): number {
  let all = bits;
  if (typeof x === 'number') all = Math.imul(all ^ x ^ (x * 1048573), 0x9e3779b1) ^ (all >>> 15);
  else if (typeof x === 'string') for (let i = 0; i < x.length; i++) all = hash(all, x.charCodeAt(i));
  else if (Array.isArray(x)) for (let i = 0; i < x.length; i++) all = hash(all, x[i]);
  else if (isNode(x)) for (const key in x) all = hash(all, (x as Readonly<Record<string, unknown>>)[key]);
  return all;
}
/** equal to the bit: −0 is not 0, NaN is NaN; what is no plain value, record or array only equals itself */
function alike(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((x, i) => alike(x, b[i]));
  if (!isNode(a) || !isNode(b) || Array.isArray(b)) return false;
  const [xs, ys] = [Object.entries(a), Object.entries(b)];
  return xs.length === ys.length && xs.every(([key, x], i) => key === ys[i]![0] && alike(x, ys[i]![1]));
}
const sameRecipe = (a: Tensor, op: Op, inputs: readonly Tensor[], attrs: object): boolean =>
  a.op === op &&
  a.inputs.length === inputs.length &&
  inputs.every((x, i) => x === a.inputs[i]) &&
  alike(a.attrs, attrs);

export function simplify(outputs: readonly Tensor[], hasKernel: (op: Op) => boolean): Tensor[] {
  const env = new Map<Tensor, Tensor>();
  /** nodes that may be merged with later ones, by a hash of their recipe */
  const made = new Map<number, Tensor[]>();
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
      for (let i = 0; i < outs.length; i++) env.set(node.outs[i]!, outs[i]!);
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
      const outs = rename(node, inputs);
      done.add(outs[0]!);
      return outs;
    }
    const same = unchanged(node, inputs);
    if (same) return [same];
    let key = hash(hash(0, node.op.name), node.attrs);
    for (const x of inputs) key = hash(key, x.id);
    const candidates = made.get(key);
    const known = candidates?.find((t) => sameRecipe(t, node.op, inputs, node.attrs));
    if (known) return known.outs;
    const outs = inputs.every((x, i) => x === node.inputs[i]) ? node.outs : rename(node, inputs);
    if (candidates) candidates.push(outs[0]!);
    else made.set(key, [outs[0]!]);
    done.add(head(outs[0]!));
    return outs;
  };

  visit(outputs);
  return outputs.map((o) => env.get(o) ?? o);
}
