/** base ⊕ adapters: a new parameter tree with each adapter beside its weight. The model code never sees a path. */
import type { Tensor, Tree } from '../core/index.ts';
import type { Adapters } from './adapter.ts';

type Node = { readonly [key: string]: unknown } | readonly unknown[];

/** A copy of the tree along one path with `update` applied to the node there; everything else is shared. */
export function updateAt<P>(tree: P, path: string, update: (node: unknown) => unknown): P {
  const walk = (node: unknown, parts: readonly string[]): unknown => {
    if (parts.length === 0) return update(node);
    const [first, ...rest] = parts as [string, ...string[]];
    if (typeof node !== 'object' || node === null || !(first in node))
      throw new RangeError(`the base has no module ${path}`);
    const next = walk((node as Record<string, unknown>)[first], rest);
    if (Array.isArray(node)) return node.map((x, i) => (String(i) === first ? next : x));
    return { ...(node as Node), [first]: next };
  };
  return walk(tree, path.split('.')) as P;
}

/**
 * `attach(base, adapters, scale)`: linears at the adapters' paths compute x·Wᵀ + bias + scale·(x·A)·B.
 * @throws RangeError naming the path when the base has no such module.
 */
export function attach<P extends Tree<Tensor>>(base: P, adapters: Adapters, scale: number): P {
  let out = base;
  for (const [path, { A, B }] of Object.entries(adapters))
    out = updateAt(out, path, (node) => ({ ...(node as object), adapter: { A, B, scale } }));
  return out;
}
