/** Parameter trees: plain readonly records and arrays with tensors (or anything else) at the leaves. */
import type { Tensor } from './tensor.ts';

/** Parameters and arguments: a leaf, or arrays and plain records of trees, to any depth. */
export type Tree<T> = T | readonly Tree<T>[] | { readonly [key: string]: Tree<T> };

type Node = readonly unknown[] | { readonly [key: string]: unknown };
export const isTensor = (x: unknown): x is Tensor => typeof x === 'object' && x !== null && 'op' in x && 'outs' in x;
/** Inner nodes are arrays and plain records; tensors, typed arrays, numbers, strings, undefined are leaves. */
export const isNode = (x: unknown): x is Node =>
  Array.isArray(x) ||
  (typeof x === 'object' && x !== null && !isTensor(x) && [Object.prototype, null].includes(Object.getPrototypeOf(x)));

/** Applies f to every leaf; `path` is dotted: `down_blocks.0.resnets.1.conv1.weight`. */
export function mapTree<P, T = P>(f: (leaf: never, path: string) => unknown, tree: P, path = ''): T {
  const at = (key: string | number) => (path === '' ? String(key) : `${path}.${key}`);
  if (Array.isArray(tree)) return tree.map((x, i) => mapTree(f, x, at(i))) as T;
  if (isNode(tree)) return Object.fromEntries(Object.entries(tree).map(([k, x]) => [k, mapTree(f, x, at(k))])) as T;
  return f(tree as never, path) as T;
}

/** Leaves with their paths, in order. */
export function entries<T>(tree: Tree<T>, path = ''): [string, T][] {
  const out: [string, T][] = [];
  mapTree((x: T, p) => void out.push([p, x]), tree, path);
  return out;
}
/** The leaves without their paths, in the order of `entries`.  @example leaves({ a: x, b: [y, z] }) // [x, y, z] */
export function leaves<T>(tree: Tree<T>): T[] {
  const out: T[] = [];
  const walk = (x: unknown): void => {
    if (isNode(x)) for (const below of Object.values(x)) walk(below);
    else out.push(x as T);
  };
  walk(tree);
  return out;
}

/** The tree of the same structure whose leaves are `values`, in order. */
export function unflatten<P>(like: P, values: readonly unknown[]): P {
  let i = 0;
  // as mapTree, which would also write every path down
  const walk = (x: unknown): unknown => {
    if (Array.isArray(x)) return x.map(walk);
    if (isNode(x)) return Object.fromEntries(Object.entries(x).map(([key, below]) => [key, walk(below)]));
    return values[i++];
  };
  return walk(like) as P;
}

/** A tree like P with R in the place of its leaves of type A. */
export type MappedTree<P, A, R> =
  // a tree of unknown structure stays one
  Tree<A> extends P ? Tree<R> : P extends A ? R : { [K in keyof P]: MappedTree<P[K], A, R> };

/**
 * Combines trees of equal structure leaf by leaf; the result has the structure of the first.
 * @throws TypeError when the structures differ, naming the first path
 * @example zipTrees((w: Tensor, g: Tensor) => sub(w, mul(g, 0.1)), params, gradients)
 */
export function zipTrees<A, B, R, P extends Tree<A>>(
  f: (a: A, b: B, path: string) => R,
  a: P,
  b: Tree<B>,
): MappedTree<P, A, R> {
  const as = entries<A>(a);
  const bs = entries(b);
  for (let i = 0; i < Math.max(as.length, bs.length); i++)
    if (as[i]?.[0] !== bs[i]?.[0])
      throw new TypeError(`trees differ: ${as[i]?.[0] ?? 'nothing'} against ${bs[i]?.[0] ?? 'nothing'}`);
  return unflatten<unknown>(
    a,
    as.map(([path, x], i) => f(x, bs[i]![1], path)),
  ) as MappedTree<P, A, R>;
}

/** A nested record from dotted paths; parts that count 0…n−1 become arrays. */
export function fromPaths<T>(paths: Iterable<readonly [string, T]>): Tree<T> {
  type Build = Map<string, Build | { leaf: T }>;
  const root: Build = new Map();
  for (const [path, value] of paths) {
    const parts = path.split('.');
    let node = root;
    for (const part of parts.slice(0, -1)) {
      const next = node.get(part);
      if (next instanceof Map) node = next;
      else {
        const made: Build = new Map();
        node.set(part, made);
        node = made;
      }
    }
    node.set(parts.at(-1)!, { leaf: value });
  }
  const finish = (node: Build | { leaf: T }): Tree<T> => {
    if (!(node instanceof Map)) return node.leaf;
    const names = [...node.keys()];
    if (names.length > 0 && names.every((_, i) => node.has(String(i))))
      return names.map((_, i) => finish(node.get(String(i))!));
    return Object.fromEntries(names.map((k) => [k, finish(node.get(k)!)]));
  };
  return finish(root);
}
