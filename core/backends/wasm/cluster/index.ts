/** Clusters (fused elementwise expressions, with or without a reduction) as kernels. */
import type { Cluster } from '../../../compile/scalar.ts';
import type { Address, Plan } from '../kernel.ts';
import { mapCommands } from './map.ts';
import { reducePlan } from './reduce.ts';

/**
 * The plan of a cluster, its bases: the inputs, the outputs, the workspace.
 * @throws RangeError when a function has no meaning for a dtype
 */
export const clusterPlan = (cluster: Cluster): Plan => {
  const base = (at: number): Address => ({ base: at, offset: 0 });
  const inputs = cluster.inputs.map((_, i) => base(i));
  const outputs = cluster.outputs.map((_, o) => base(inputs.length + o));
  return cluster.reduce
    ? reducePlan(cluster, inputs, outputs[0]!, base(inputs.length + outputs.length))
    : { bytes: 0, commands: mapCommands(cluster, inputs, outputs) };
};
