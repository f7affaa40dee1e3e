/** Intermediate values of a function and their cotangents, by path: without changing the function. */
import { computes, type ModuleOf, modulesOf } from '../compile/modules.ts';
import { CoreError } from '../ir/errors.ts';
import { head, type Tensor, topo } from '../ir/tensor.ts';
import { isTensor, leaves, mapTree, type Tree } from '../ir/tree.ts';
import { alias } from '../ops/control.ts';
import { ones, zeros } from '../ops/fill.ts';
import { pullback } from '../transforms/grad.ts';

/** What `capture` found; recipes, as everything before `evaluate`. */
export interface Captured<Y> {
  /** what the function returns */
  readonly value: Y;
  /** values by path */
  readonly intermediates: Readonly<Record<string, Tensor>>;
  /** derivatives of a scalar value by the intermediates; nothing where the value is no scalar */
  readonly cotangents: Readonly<Record<string, Tensor>>;
}
/** `layer1.weight` belongs to `layer1`; a path of one word is a module of its own */
const parentOf: ModuleOf = (path) => path.split('.').slice(0, -1).join('.') || path;

/**
 * `capture(f, ['layer1', 'hidden'])(...args)` → { value, intermediates, cotangents }: a path is that of a `mark`, or of a
 * module: then it is the last value computed for the parameters below that path of the arguments (`layer1.weight`,
 * `layer1.bias`). Without paths: all marks. Values inside `checkpoint` are not seen. `named`: values that f
 * itself names while it is traced. Cost: one trace and one pullback.
 * @throws CoreError when nothing has that path, naming the paths there are
 * @example const { intermediates, cotangents } = evaluate(capture(loss, ['hidden'])(params, x), backend)
 */
export function capture<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
  paths?: readonly string[],
  moduleOf: ModuleOf = parentOf,
  named: ReadonlyMap<string, Tensor> = new Map(),
): (...args: A) => Captured<Y> {
  return (...args) => {
    const labels = new Map<Tensor, string>();
    const fresh = args.map((arg) =>
      mapTree((x: unknown, path) => {
        if (!isTensor(x)) return x;
        const t = alias(x);
        const label = x.label ?? path;
        if (label !== '') labels.set(t, label);
        return t;
      }, arg),
    ) as unknown as A;
    const value = f(...fresh);
    const results = leaves<Tensor>(value);
    const inputs = [...labels.keys()];
    const order = topo(results).filter((t) => !labels.has(t));
    const marks = new Map<string, Tensor>();
    for (const node of order) {
      const path = node.op.kind === 'primitive' ? node.op.path?.(node.attrs as never) : undefined;
      if (path === undefined) continue;
      let name = path;
      for (let again = 2; marks.has(name); again++) name = `${path} (${again})`;
      marks.set(name, node);
    }
    const modules = modulesOf({ order, inputs }, moduleOf, (t) => labels.get(t));
    const last = (path: string): Tensor | undefined =>
      order.findLast((node) => {
        const module = modules.get(head(node));
        return computes(node.op) && (module === path || module?.startsWith(`${path}.`));
      });
    const found = (paths ?? [...marks.keys()]).map((path) => {
      const t = named.get(path) ?? marks.get(path) ?? last(path);
      if (t) return [path, t] as const;
      const known = [...marks.keys(), ...new Set(modules.values())];
      throw new CoreError(`capture: nothing has the path ${path}; there are ${known.join(', ') || 'none'}`);
    });
    const [only, ...more] = results;
    const scalar = only !== undefined && more.length === 0 && only.shape.length === 0;
    const values = found.map(([, t]) => t);
    // one of these may stand before another
    const back = scalar ? pullback([only], [ones([], only.dtype)], values, true) : [];
    const cotangents = back.map((g, i) => [found[i]![0], g ?? zeros(values[i]!.shape, values[i]!.dtype)] as const);
    return { value, intermediates: Object.fromEntries(found), cotangents: Object.fromEntries(cotangents) };
  };
}
