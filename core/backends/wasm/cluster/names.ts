/** Names of generated kernels: readable, and one for each structure. */
import type { Cluster } from '../../../compile/scalar.ts';
import { type Kernel, type KernelCode, kernel, type Words } from '../kernel.ts';

const known = new Map<string, Kernel>();

/** `map add,mul #3`: the kernel of this kind and structure, the same object whenever it is asked for again */
export const generated = (
  kind: string,
  cluster: Pick<Cluster, 'steps'>,
  structure: string,
  words: () => Words<string>,
  body: (code: KernelCode<string>) => void,
): Kernel => {
  const key = `${kind}|${structure}`;
  const found = known.get(key);
  if (found) return found;
  const calls = [...new Set(cluster.steps.flatMap((s) => (s.kind === 'call' ? [s.fn] : [])))];
  const text = calls.length > 4 ? `${calls.slice(0, 4).join()}…` : calls.join() || 'copy';
  const made = kernel(`${kind} ${text} #${known.size}`, words(), body);
  known.set(key, made);
  return made;
};
