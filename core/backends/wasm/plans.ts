/**
 * Plans of kernels. A plan depends on sizes and strides alone, and the layers of a model are few in kind: it is made once
 * for a machine and taken again wherever the same kernel stands, in this program and in later ones.
 */
import type { Buffer, Kernel, Operand } from '../../compile/lower.ts';
import type { Cluster, ScalarStep } from '../../compile/scalar.ts';
import { byteOffset } from '../../ir/dtype.ts';
import { CoreError } from '../../ir/errors.ts';
import type { Tensor } from '../../ir/tensor.ts';
import { contiguousView, type View } from '../../ir/view.ts';
import { clusterPlan } from './cluster/index.ts';
import type { Placed, Plan } from './kernel.ts';
import { kernels } from './kernels.ts';
import type { Machine } from './machine/machine.ts';
import { isOutside } from './machine/memory.ts';

/** by machine and by what they depend on, as text */
const plans = new WeakMap<Machine, Map<string, Plan>>();
const MOST_PLANS = 4096;
/** the same of clusters that stand in several places as one object: no text is written for them again */
const plansOf = new WeakMap<Machine, WeakMap<Cluster, Plan>>();

/** numbers that differ as constants differ as text */
const numberText = (x: number): string => (Object.is(x, -0) ? '-0' : `${x}`);
const stepText = (s: ScalarStep): string => {
  if (s.kind === 'load') return `${s.input}`;
  if (s.kind === 'call') return `${s.fn}${s.dtype}(${s.args})`;
  return s.kind === 'const' ? `c${numberText(s.value)}${s.dtype}` : `i${s.axis}${s.dtype}`;
};
function clusterText({ shape, inputs, steps, outputs, reduce }: Cluster): string {
  let text = `${shape}|${outputs}|${reduce ? `${reduce.op}${reduce.axes}` : ''}`;
  for (const x of inputs) text += `;${x.dtype}${x.offset}:${x.strides}`;
  for (const s of steps) text += ` ${stepText(s)}`;
  return text;
}
const exact = (_key: string, x: unknown): unknown =>
  typeof x === 'number' && (!Number.isFinite(x) || Object.is(x, -0)) ? numberText(x) : x;
function opText({ op, attrs }: Tensor, inputs: readonly Operand[], outside: readonly boolean[], read: string): string {
  let text = `${op.name}|${read}|${outside}|${Object.keys(attrs).length === 0 ? '' : JSON.stringify(attrs, exact)}`;
  for (const { buffer, view } of inputs) text += `;${buffer.dtype}${view.offset}:${view.shape}:${view.strides}`;
  return text;
}

/**
 * What plans the kernels of a program with these inputs. The bases of a plan: what the kernel reads, what it writes, the
 * workspace.
 */
export function planner(machine: Machine, programInputs: readonly Buffer[]): (k: Kernel) => Plan {
  const given = new Set(programInputs);
  if (!plans.has(machine)) plans.set(machine, new Map());
  const known = plans.get(machine)!;
  const shared = plansOf.get(machine) ?? new WeakMap<Cluster, Plan>();
  plansOf.set(machine, shared);
  const remembered = (key: string, make: () => Plan): Plan => {
    const there = known.get(key);
    if (there) return there;
    if (known.size >= MOST_PLANS) known.clear();
    const plan = make();
    known.set(key, plan);
    return plan;
  };
  return (k) => {
    if (k.kind === 'cluster') {
      const { cluster } = k;
      const there = shared.get(cluster);
      if (there) return there;
      const plan = remembered(clusterText(cluster), () => clusterPlan(cluster));
      if (k.within) shared.set(cluster, plan);
      return plan;
    }
    const outside = k.inputs.map(({ buffer }) => given.has(buffer) && isOutside(buffer.dtype));
    const read = k.outputs.map((b) => (b ? 'y' : '-')).join('');
    return remembered(opText(k.node, k.inputs, outside, read), () => {
      const kernel = kernels.get(k.node.op.name);
      if (!kernel) throw new CoreError(`wasm has no kernel for ${k.node.op.name}`);
      const place = (base: number, { dtype }: Buffer, view: View, isOut: boolean): Placed => ({
        at: { base, offset: byteOffset(dtype, view.offset) },
        view,
        dtype,
        outside: isOut,
      });
      const inputs = k.inputs.map(({ buffer, view }, i) => place(i, buffer, view, outside[i]!));
      const outputs = k.outputs.map(
        (b, i) => b && place(inputs.length + i, b, contiguousView(k.node.outs[i]!.shape), false),
      );
      const workspace = { base: inputs.length + outputs.length, offset: 0 };
      return kernel.plan({ machine, attrs: k.node.attrs, inputs, outputs, workspace });
    });
  };
}
