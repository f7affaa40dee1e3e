/** base ⊕ adapters: a new parameter tree with each adapter beside its weight. The model code never sees a path. */
import type { Tensor, Tree } from '../core/index.ts';
import type { Adapter, Adapters } from './adapter.ts';

/**
 * A copy of the tree along one path with `update` applied to the node there; everything else is shared.
 * @throws RangeError naming the path when there is nothing
 * @example updateAt({ a: [1, 2] }, 'a.0', (x) => -x) // { a: [-1, 2] }
 */
export function updateAt<P>(tree: P, path: string, update: (node: unknown) => unknown): P {
  const walk = (node: unknown, parts: readonly string[]): unknown => {
    if (parts.length === 0) return update(node);
    const [first, ...rest] = parts as [string, ...string[]];
    if (typeof node !== 'object' || node === null || !Object.prototype.propertyIsEnumerable.call(node, first))
      throw new RangeError(`the base has no module ${path}`);
    const next = walk((node as Readonly<Record<string, unknown>>)[first], rest);
    if (Array.isArray(node)) return node.map((x, i) => (String(i) === first ? next : x));
    return { ...node, [first]: next };
  };
  return walk(tree, path.split('.')) as P;
}

/** The layer of a module: its weight is PyTorch's [d_out, d_in] where it is a linear one. */
export type AdaptedModule = { readonly weight: Tensor };

/**
 * `updateAt` for every module of a tree by path, at the layer it belongs to.
 * @throws RangeError naming the path: no such module, or nothing with a weight
 */
export function updateModules<P extends Tree<Tensor>, M>(
  base: P,
  modules: { readonly [path: string]: M },
  update: (module: AdaptedModule, trained: M, path: string) => object,
): P {
  let out = base;
  for (const [path, trained] of Object.entries(modules))
    out = updateAt(out, path, (node) => {
      if ((node as Partial<AdaptedModule> | null)?.weight?.shape === undefined)
        throw new RangeError(`${path} is not a linear layer of the base`);
      return update(node as AdaptedModule, trained, path);
    });
  return out;
}

/**
 * The same for adapters of linear layers.
 * @throws RangeError naming the path: no such module, no linear layer, or one of another size
 */
export const updateLinears = <P extends Tree<Tensor>>(
  base: P,
  adapters: Adapters,
  update: (module: AdaptedModule, adapter: Adapter) => object,
): P =>
  updateModules(base, adapters, (module, adapter, path) => {
    checkLinear(path, module, adapter);
    return update(module, adapter);
  });

/** @throws RangeError naming the path of a module that is no linear layer, or one of another size */
export function checkLinear(path: string, { weight: { shape } }: AdaptedModule, { A, B }: Adapter): void {
  if (shape.length !== 2) throw new RangeError(`${path} is not a linear layer of the base`);
  const [dOut, dIn] = shape;
  if (A.shape[0] !== dIn || B.shape[1] !== dOut || A.shape[1] !== B.shape[0])
    throw new RangeError(
      `${path}: adapter A[${A.shape.join(', ')}], B[${B.shape.join(', ')}]; expected A[${dIn}, r], B[r, ${dOut}]`,
    );
}

/**
 * `attach(base, adapters, scale)`: linears at the adapters' paths compute x·Wᵀ + bias + scale·(x·A)·B.
 * @throws RangeError naming the path: no such module, no linear layer, or one of another size
 * @example unet(attach(base.unet, adapters.unet, 1), config, x, t, context)
 */
export const attach = <P extends Tree<Tensor>>(base: P, adapters: Adapters, scale: number): P =>
  updateLinears(base, adapters, (module, { A, B }) => ({ ...module, adapter: { A, B, scale } }));
