/**
 * Bodies of composites that are lowered once: a program applies an update rule to hundreds of leaves of few shapes, and all
 * that lie alike run the same kernels, in this program and in later ones of the same options.
 */
import { type Attrs, type Composite, hole, type Op, type Tensor, topo } from '../ir/tensor.ts';
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
/** by what a body is lowered for, by what makes it another body, by how its operands lie */
const lowered = new WeakMap<BodyOptions, WeakMap<Attrs, Map<string, Lowered>>>();

/** What lowers the bodies of a program. */
export function bodies(options: BodyOptions): NonNullable<LowerOptions['body']> {
  const known = lowered.get(options) ?? new WeakMap<Attrs, Map<string, Lowered>>();
  lowered.set(options, known);
  const body: NonNullable<LowerOptions['body']> = ({ op, attrs, inputs }, operands, isRead) => {
    const alike = known.get(attrs) ?? new Map<string, Lowered>();
    known.set(attrs, alike);
    const key = `${op.name}|${isRead}|${operands.map(lieText).join(';')}`;
    const there = alike.get(key);
    if (there) return there;
    const holes = inputs.map((x) => hole(x));
    const results = (op as Composite).body(holes, attrs).filter((_, i) => isRead[i]);
    const outputs = simplify(results, options.hasKernel ?? (() => false));
    const order = topo(outputs).filter((t) => !isLeaf(t));
    const alone = lower({ inputs: holes, outputs, order, donated: new Set() }, { ...options, body }, operands);
    const made = options.merge ? merge(alone, options.merge) : alone;
    alike.set(key, made);
    return made;
  };
  return body;
}
const isLeaf = (t: Tensor): boolean => t.op.kind === 'primitive' && t.op.form.kind === 'leaf';
const lieText = ({ buffer: { dtype, elements }, view: { shape, strides, offset } }: Operand): string =>
  `${dtype} ${elements} ${offset}:${shape}:${strides}`;
