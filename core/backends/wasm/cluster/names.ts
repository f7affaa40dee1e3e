/** Names of generated kernels: readable, and one for each structure. */
import type { Cluster } from '../../../compile/scalar.ts';
import type { Assembler } from '../assembler/assemble.ts';
import type { KernelSource } from '../loops/walk.ts';

const known = new Map<string, KernelSource>();

/** `map add,mul #3`: the kernel of this kind and structure, the same object whenever it is asked for again */
export const kernelOf = (
  kind: string,
  cluster: Pick<Cluster, 'steps'>,
  structure: string,
  emit: (m: Assembler, name: string) => void,
): KernelSource => {
  const key = `${kind}|${structure}`;
  const found = known.get(key);
  if (found) return found;
  const calls = [...new Set(cluster.steps.flatMap((s) => (s.kind === 'call' ? [s.fn] : [])))];
  const text = calls.length > 4 ? `${calls.slice(0, 4).join()}…` : calls.join() || 'copy';
  const name = `${kind} ${text} #${known.size}`;
  const made: KernelSource = { name, emit: (m) => emit(m, name) };
  known.set(key, made);
  return made;
};
