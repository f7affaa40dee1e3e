/** The kernels that run an op, per backend: their text where a backend prints text, their names where it emits bytes. */
import { printCluster, printDot } from '../../core/backends/gpujs/printKernel.ts';
import { hasKernel, isStrided, recipeOf } from '../../core/backends/webgpu/ops.ts';
import { printReduce } from '../../core/backends/webgpu/printReduce.ts';
import { printElementwise } from '../../core/backends/webgpu/printWgsl.ts';
import type { Target } from '../../core/backends/webgpu/target.ts';
import type { Graph } from '../../core/compile/backend.ts';
import { makeGraph } from '../../core/compile/compile.ts';
import type { Kernel } from '../../core/compile/lower.ts';
import { prepare } from '../../core/compile/prepare.ts';
import { type Backend, CoreError } from '../../core/index.ts';
import { hole, type Op, type Pick, type Tensor } from '../../core/ir/tensor.ts';
import { bindTo, sampleOf } from './application.ts';

export type KernelText = { readonly name: string; readonly text: string };

/** A backend only as far as a graph asks for it: which composites stay whole. */
const shape = (keeps: (op: Op) => boolean): Backend =>
  ({ name: 'webgpu', supports: () => true, hasKernel: keeps }) as unknown as Backend;

/** The sample of an op as a program: arguments in, results out, nothing computed. */
export function sampleGraph(op: Op, keeps: (op: Op) => boolean, pick?: Pick): Graph {
  const { operands, attrs } = sampleOf(op, 'f32', pick);
  const inputs: Tensor[] = operands.map((o, i) => hole({ shape: o.shape, dtype: o.dtype ?? 'f32' }, `x${i}`));
  return makeGraph(bindTo(op, inputs, attrs), inputs, new Set(), shape(keeps)).graph;
}

const stepNames = (k: Kernel): string =>
  k.kind === 'op'
    ? k.node.op.name
    : `${k.cluster.reduce ? `${k.cluster.reduce.op} of ` : ''}${
        k.cluster.steps.flatMap((s) => (s.kind === 'call' ? [s.fn] : [])).join(', ') || 'copy'
      }`;

/** A backend that cannot express a sample (f64) says why. */
function orReason(print: () => readonly KernelText[]): readonly KernelText[] {
  try {
    return print();
  } catch (error) {
    if (error instanceof CoreError || error instanceof RangeError)
      return [{ name: `none: ${error.message}`, text: '' }];
    throw error;
  }
}

/** a graphics card without known subgroups: what every one of them can run */
const GPU: Target = { class: 'gpu', subgroup: 0 };

/**
 * The WGSL a sample of the op is dispatched as on a GPU; no device is opened.
 * @returns nothing for views and constants, which need no kernel
 */
export const wgslOf = (op: Op): readonly KernelText[] => orReason(() => printWgsl(op));

function printWgsl(op: Op): readonly KernelText[] {
  const prepared = prepare(sampleGraph(op, hasKernel), { strided: isStrided, maxLoads: 8 });
  return prepared.kernels.flatMap((k) => {
    const recipe =
      k.kind === 'op'
        ? recipeOf(
            k.node,
            k.inputs.map((o) => o.view),
            GPU,
          ).launches.map(({ kernel }) => kernel)
        : k.cluster.reduce
          ? printReduce(k.cluster, 'gpu').launches.map(({ kernel }) => kernel)
          : [printElementwise(k.cluster, 'gpu')];
    return recipe.map(({ name, code, groups }) => ({
      name: `${stepNames(k)}: ${name}, ${groups.join('×')} workgroups for the sample`,
      text: code.trim(),
    }));
  });
}

/** The JavaScript gpu.js turns into a GPU kernel, or why an op runs on the reference loops there. */
export const gpujsOf = (op: Op): readonly KernelText[] => orReason(() => printGpujs(op));

function printGpujs(op: Op): readonly KernelText[] {
  const prepared = prepare(
    sampleGraph(op, () => false),
    { strided: (o) => o.name === 'dot', maxLoads: 7 },
  );
  return prepared.kernels.map((k) => {
    const name = stepNames(k);
    if (k.kind === 'op' && k.node.op.name !== 'dot') return { name: `${name}: reference loops`, text: '' };
    const printed = k.kind === 'cluster' ? printCluster(k.cluster) : printDot(k.inputs[0].view, k.inputs[1].view);
    return 'refused' in printed
      ? { name: `${name}: reference loops (${printed.refused})`, text: '' }
      : { name, text: printed.source.trim() };
  });
}

/** Names of the kernels a backend runs for the sample. */
export function kernelNames(op: Op, backend: Backend): readonly string[] {
  try {
    const program = backend.build(sampleGraph(op, (o) => backend.hasKernel(o)));
    const names = program.report().map(({ name, detail }) => `${name} ${detail}`);
    program.release();
    return names;
  } catch (error) {
    if (error instanceof CoreError) return [`none: ${error.message}`];
    throw error;
  }
}
