/**
 * Bodies of composites that are lowered once: a program applies an update rule to hundreds of leaves of few shapes, and all
 * that lie alike run the same kernels, in this program and in later ones of the same options.
 */

import { type Attrs, type Composite, hole, isLeaf, type Op, topo } from '../ir/tensor.ts';
import { same } from '../ir/view.ts';
import { type Lowered, type LowerOptions, lower, type Operand } from './lower.ts';
import { type MergeOptions, merge } from './merge.ts';
import { simplify } from './simplify.ts';

/** Whether a backend of kernels may keep an application of this op and lower its body by itself. */
export const isOnce = (op: Op): boolean => op.kind === 'composite' && op.once === true;

export interface BodyOptions extends LowerOptions {
  /** true: this composite inside a body stays one node; where left out, all are written out */
  hasKernel?(op: Op): boolean;
  /** limits of clusters with several results; where left out, every cluster has one */
  readonly merge?: MergeOptions | undefined;
}
interface Known {
  readonly op: Op;
  /** how the operands lie, and which results are read */
  readonly operands: readonly Operand[];
  readonly isRead: readonly boolean[];
  readonly lowered: Lowered;
}
/** by what a body is lowered for, by what makes it another body; few lie in more than one way */
const lowered = new WeakMap<BodyOptions, WeakMap<Attrs, Known[]>>();
const liesAs = (a: Operand, b: Operand): boolean =>
  a.buffer.dtype === b.buffer.dtype &&
  a.buffer.elements === b.buffer.elements &&
  a.view.offset === b.view.offset &&
  same(a.view.shape, b.view.shape) &&
  same(a.view.strides, b.view.strides);

/** What lowers the bodies of a program. */
export function bodies(options: BodyOptions): NonNullable<LowerOptions['body']> {
  const known = lowered.get(options) ?? new WeakMap<Attrs, Known[]>();
  lowered.set(options, known);
  const body: NonNullable<LowerOptions['body']> = ({ op, attrs, inputs }, operands, isRead) => {
    const alike = known.get(attrs) ?? [];
    known.set(attrs, alike);
    const there = alike.find(
      (k) =>
        k.op === op && k.isRead.every((r, i) => r === isRead[i]) && k.operands.every((o, i) => liesAs(o, operands[i]!)),
    );
    if (there) return there.lowered;
    const holes = inputs.map((x) => hole(x));
    const results = (op as Composite).body(holes, attrs).filter((_, i) => isRead[i]);
    const outputs = simplify(results, options.hasKernel ?? (() => false));
    const order = topo(outputs).filter((t) => !isLeaf(t));
    const alone = lower({ inputs: holes, outputs, order, donated: new Set() }, { ...options, body }, operands);
    const made = options.merge ? merge(alone, options.merge) : alone;
    alike.push({ op, operands, isRead, lowered: made });
    return made;
  };
  return body;
}
