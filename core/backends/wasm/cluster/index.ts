/**
 * Clusters (fused elementwise expressions, with or without a reduction) as commands of the machine.
 *
 * @example
 * const work = clusterWork(cluster, { inputs: [x], outputs: [y], workspace });   // byte addresses
 * installKernels(machine, work.kernels);
 * machine.run(machine.prepare(work.commands));
 */
import type { Cluster } from '../../../compile/scalar.ts';
import { assembler } from '../assembler/assemble.ts';
import type { KernelSource, Work } from '../loops/walk.ts';
import type { Machine } from '../machine/machine.ts';
import { mapWork } from './map.ts';
import { reduceWork, reduceWorkspace } from './reduce.ts';

export interface Addresses {
  /** byte addresses of the buffers the cluster's inputs are views of */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  /** room for {@link clusterWorkspace} bytes */
  readonly workspace: number;
}

/** bytes of workspace the commands of a cluster need: partial results of long reductions */
export const clusterWorkspace = (cluster: Cluster): number => (cluster.reduce ? reduceWorkspace(cluster) : 0);

/**
 * Commands that compute a cluster, and the kernels they call.
 * @throws RangeError when a function has no meaning for a dtype
 */
export const clusterWork = (cluster: Cluster, { inputs, outputs, workspace }: Addresses): Work =>
  cluster.reduce ? reduceWork(cluster, inputs, outputs[0]!, workspace) : mapWork(cluster, inputs, outputs);

/** Compiles the kernels the machine does not have yet, all in one module. */
export const installKernels = (machine: Machine, kernels: readonly KernelSource[]): void => {
  const missing = new Map(kernels.filter((k) => !machine.hasKernel(k.name)).map((k) => [k.name, k]));
  if (missing.size === 0) return;
  const m = assembler();
  for (const kernel of missing.values()) kernel.emit(m);
  machine.addModule(m.bytes());
};
