/** Several adapters as one: their changes add up, each with a strength of its own. */
import type { AdapterFile, AdapterModule } from './adapter-file.ts';
import { FileError } from './error.ts';

/** An adapter, how strongly it is wanted, and its name for messages. */
export type Share = { readonly name: string; readonly adapter: AdapterFile; readonly strength: number };

/**
 * Σᵢ strengthᵢ·ΔWᵢ as one adapter: A = [A₁ | A₂ …] side by side, B = [s₁B₁; s₂B₂ …] below each other, so that A·B is the
 * sum. One adapter at strength 1 stays as it is, to the bit.
 * @throws FileError where two of them have one module in different sizes
 * @example combine([{ name: 'a', adapter, strength: 0.7 }])
 */
export function combine(shares: readonly Share[]): AdapterFile {
  const [first] = shares;
  if (shares.length === 1 && first.strength === 1) return first.adapter;
  const modules = new Map<string, AdapterModule>();
  for (const { name, adapter, strength } of shares) {
    for (const [path, module] of adapter.modules) {
      const own = { ...module, scale: module.scale * strength };
      const before = modules.get(path);
      if (before !== undefined && (before.dIn !== own.dIn || before.dOut !== own.dOut))
        throw new FileError(
          name,
          path,
          `is ${own.dIn} → ${own.dOut}, in another adapter ${before.dIn} → ${before.dOut}`,
        );
      modules.set(path, before === undefined ? own : beside(before, own));
    }
  }
  return { modules, metadata: first.adapter.metadata, notes: shares.flatMap(({ adapter }) => adapter.notes ?? []) };
}

function beside(a: AdapterModule, b: AdapterModule): AdapterModule {
  const rank = a.rank + b.rank;
  const A = new Float32Array(a.dIn * rank);
  for (let i = 0; i < a.dIn; i++) {
    A.set(a.A.subarray(i * a.rank, (i + 1) * a.rank), i * rank);
    A.set(b.A.subarray(i * b.rank, (i + 1) * b.rank), i * rank + a.rank);
  }
  const B = new Float32Array(rank * a.dOut);
  B.set(a.scale === 1 ? a.B : a.B.map((x) => x * a.scale));
  B.set(b.scale === 1 ? b.B : b.B.map((x) => x * b.scale), a.rank * a.dOut);
  return { ...a, A, B, rank, scale: 1 };
}

/**
 * `FILE` or `FILE=0.7`; a path that exists is taken as it is, whatever is in its name.
 * @example splitStrength('a.safetensors=0.7', 1, false) // { path: 'a.safetensors', strength: 0.7 }
 */
export function splitStrength(
  text: string,
  otherwise: number,
  exists: boolean,
): { readonly path: string; readonly strength: number } {
  const [, path, number] = exists ? [] : (/^(.+)=([-+]?(?:\d+\.?\d*|\.\d+))$/.exec(text) ?? []);
  return path === undefined ? { path: text, strength: otherwise } : { path, strength: Number(number) };
}
