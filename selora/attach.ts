/** base ⊕ adapters: a new parameter tree with each adapter beside its weight. The model code never sees a path. */
import { type Backend, evaluate, permute, reshape, type Tensor, type Tree } from '../core/index.ts';
import type { LowRank } from '../nn/index.ts';
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

/** The layer of a module: its weight is PyTorch's [d_out, d_in] where it is a linear one, a kernel [kh, kw, in, out] of a convolution. */
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
      if ((node as Partial<AdaptedModule> | null)?.weight?.shape === undefined) throw noLayer(path);
      return update(node as AdaptedModule, trained, path);
    });
  return out;
}

const noLayer = (path: string) => new RangeError(`${path} is neither a linear layer nor a convolution of the base`);

/**
 * The same for low-rank adapters.
 * @throws RangeError naming the path: no such module, neither a linear layer nor a convolution, or one of another size
 */
export const updateLayers = <P extends Tree<Tensor>>(
  base: P,
  adapters: Adapters,
  update: (module: AdaptedModule, adapter: Adapter) => object,
): P =>
  updateModules(base, adapters, (module, adapter, path) => {
    checkLayer(path, module, adapter);
    return update(module, adapter);
  });

/** @throws RangeError naming the path of a module that is no layer with inputs and outputs, or one of another size */
export function checkLayer(path: string, { weight: { shape } }: AdaptedModule, { A, B }: Adapter): void {
  if (shape.length !== 2 && shape.length !== 4) throw noLayer(path);
  const [dOut, dIn] = shape.length === 2 ? shape : [shape[3], shape[0]! * shape[1]! * shape[2]!];
  if (A.shape[0] !== dIn || B.shape[1] !== dOut || A.shape[1] !== B.shape[0])
    throw new RangeError(
      `${path}: adapter A[${A.shape.join(', ')}], B[${B.shape.join(', ')}]; expected A[${dIn}, r], B[r, ${dOut}]`,
    );
}

/**
 * An adapter as its layer takes it: A[d_in, r] as it is, or for a kernel [kh, kw, in, out], whose d_in counts
 * [in, kh, kw] as files do, as a kernel [kh, kw, in, r].
 */
export function inLayer({ weight: { shape } }: AdaptedModule, { A, B }: Adapter, scale: number): LowRank {
  if (shape.length !== 4) return { A, B, scale };
  const [kh, kw, inputs] = shape as [number, number, number];
  return { A: permute(reshape(A, [inputs, kh, kw, A.shape[1]!]), [1, 2, 0, 3]), B, scale };
}

/**
 * `attach(base, adapters, scale)`: linear layers at the adapters' paths compute x·Wᵀ + bias + scale·(x·A)·B, convolutions
 * x∗W + bias + scale·(x∗A)·B. Their A is a recipe, unless a backend is given that puts it in order at once.
 * @throws RangeError naming the path: no such module, neither a linear layer nor a convolution, or one of another size
 * @example unet(attach(base.unet, adapters.unet, 1), config, x, t, context)
 */
export const attach = <P extends Tree<Tensor>>(base: P, adapters: Adapters, scale: number, backend?: Backend): P =>
  updateLayers(base, adapters, (module, a) => {
    const layer = inLayer(module, a, scale);
    return { ...module, adapter: backend ? { ...layer, A: evaluate({ A: layer.A }, backend).A } : layer };
  });
