/** One rank for all modules, for loaders that take a single `r`. */
import type { AdapterFile, AdapterModule } from './adapter-file.ts';

/**
 * Every module at rank `rank` (default: the largest there is): A gets zero columns, B zero rows, so ΔW stays as it is.
 * @throws RangeError if a module has a higher rank: padding does not approximate
 * @example await writeAdapter('for-old-loaders.safetensors', padRank(adapter))
 */
export function padRank(adapter: AdapterFile, rank = largestRank(adapter)): AdapterFile {
  return {
    ...adapter,
    modules: new Map([...adapter.modules].map(([name, module]) => [name, padded(name, module, rank)])),
  };
}

export function largestRank({ modules }: AdapterFile): number {
  return Math.max(1, ...[...modules.values()].map((module) => module.rank));
}

function padded(name: string, module: AdapterModule, rank: number): AdapterModule {
  if (module.rank > rank) throw new RangeError(`${name} has rank ${module.rank}, above ${rank}`);
  const A = new Float32Array(module.dIn * rank);
  for (let i = 0; i < module.dIn; i++) A.set(module.A.subarray(i * module.rank, (i + 1) * module.rank), i * rank);
  const B = new Float32Array(rank * module.dOut);
  B.set(module.B);
  return { ...module, A, B, rank };
}
