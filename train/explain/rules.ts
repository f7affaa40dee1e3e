/** What an op's rules make of its sample, as graphs in text: the backward graph, and the one that vmap writes. */
import { functions } from '../../core/functions/catalog.ts';
import { pullback, type Tensor, vmap } from '../../core/index.ts';
import { isFloat } from '../../core/ir/dtype.ts';
import { hole, type Op } from '../../core/ir/tensor.ts';
import { type Applied, bindTo } from './application.ts';
import { closedFormFor } from './check.ts';
import { letForm } from './graph.ts';

const LETTERS = 'abcdefghijklmnop';
/** operands are a, b, c… */
export const nameOf = (i: number): string => LETTERS[i] ?? `x${i}`;
/** What the compiler does with each form of primitive. */
const FORMS: Readonly<Record<string, string>> = {
  elementwise: 'elementwise primitive: fused with its neighbours into one loop',
  fill: 'fill primitive: computed where it is needed, never stored',
  layout: 'layout primitive: a view of its operand where strides can say it',
  reduce: 'reduction primitive: one loop, elementwise operands fused into it',
  identity: 'identity primitive: computes nothing',
  kernel: 'primitive with kernels of its own',
  leaf: 'leaf',
};
export const formText = (op: Op): string =>
  op.kind === 'composite'
    ? functions.has(op.name)
      ? 'function written in ops: every rule is that of its body'
      : 'composite: a body in other ops, with a kernel where a backend has one'
    : FORMS[op.form.kind];

/** The backward graph of the sample: what the rule builds. */
export function vjpGraph(applied: Applied): readonly string[] {
  const { inputs, outs } = applied;
  const closed = closedFormFor(applied);
  const names = new Map(inputs.map((x, i) => [x, nameOf(i)]));
  for (const [i, o] of outs.entries()) names.set(o, outs.length > 1 ? `y${i}` : 'y');
  const cotangents = outs.map((o, i) => {
    const g = hole(o);
    names.set(g, outs.length > 1 ? `g${i}` : 'g');
    return isFloat(o.dtype) && (closed?.[i] ?? true) ? g : undefined;
  });
  const at = inputs.flatMap((x, i) => (isFloat(x.dtype) ? [i] : []));
  const back = pullback(
    outs,
    cotangents,
    at.map((i) => inputs[i]),
  );
  const given = back.flatMap((g) => (g ? [g] : []));
  const { lines, results } = letForm(given, names);
  let k = 0;
  const ends = back.map((g, i) => `d${nameOf(at[i])} = ${g ? results[k++] : '0'}`);
  return [...lines, ...ends];
}

/** What vmap makes of the sample when `mapped` operands carry 3 samples. */
export function batchGraph({ op, inputs, attrs }: Applied, mapped: readonly boolean[]): readonly string[] {
  const names = new Map<Tensor, string>();
  const many = inputs.map((x, i) => {
    const t = hole({ shape: mapped[i] ? [3, ...x.shape] : x.shape, dtype: x.dtype });
    names.set(t, nameOf(i));
    return t;
  });
  const axes = mapped.map((m) => (m ? 0 : null));
  const outs = vmap((...xs: Tensor[]) => bindTo(op, xs, attrs) as Tensor[], axes)(...many);
  const { lines, results } = letForm(outs, names);
  return [...lines, `→ ${results.join(', ')}`];
}
