/** Which module of a model each node of a graph works for, from the labels its inputs carry: for profiles. */

import { head, type Op, type Tensor } from '../ir/tensor.ts';
import type { Graph } from './backend.ts';

/** Whether a node computes: layouts, constants and identities only name values that are there already. */
export const computes = (op: Op): boolean =>
  op.kind === 'composite' || !['layout', 'fill', 'identity', 'leaf'].includes(op.form.kind);

/** The module whose parameter has this label; undefined for what is no parameter. The model's owner knows its labels. */
export type ModuleOf = (label: string) => string | undefined;

/**
 * The module each node works for: that of the parameter it reads, else that of its latest operand. A guess for what
 * stands between modules, exact where weights are read.
 */
export function modulesOf(
  { order, inputs }: Pick<Graph, 'order' | 'inputs'>,
  moduleOf: ModuleOf,
  labelOf: (t: Tensor) => string | undefined = (t) => t.label,
): ReadonlyMap<Tensor, string> {
  const modules = new Map<Tensor, string>();
  /** parameters and other views of them */
  const parameters = new Set<Tensor>();
  for (const t of inputs) {
    const label = labelOf(t);
    const module = label === undefined ? undefined : moduleOf(label);
    if (module === undefined) continue;
    modules.set(t, module);
    parameters.add(t);
  }
  for (const node of order) {
    const named = node.inputs.map(head).filter((x) => modules.has(x));
    const latest = named.reduce<Tensor | undefined>((a, b) => (a && a.id > b.id ? a : b), undefined);
    const from = named.find((x) => parameters.has(x)) ?? latest;
    if (!from) continue;
    modules.set(node, modules.get(from)!);
    if (parameters.has(from) && !computes(node.op)) parameters.add(node);
  }
  return modules;
}
