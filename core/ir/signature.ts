/** What tells calls of a function apart that is traced once and then used again. */
import { isLeaf, type LeafAttrs, type Tensor, topo } from './tensor.ts';
import { isNode, isTensor } from './tree.ts';

/** numbers for static values that have no text of their own: functions, maps, instances of classes */
const identities = new WeakMap<object, number>();
let nextIdentity = 0;
function staticText(x: unknown): string {
  if (typeof x === 'string') return JSON.stringify(x);
  if (Object.is(x, -0)) return 'number -0';
  if ((typeof x !== 'object' && typeof x !== 'function') || x === null) return `${typeof x} ${String(x)}`;
  if (!identities.has(x)) identities.set(x, nextIdentity++);
  return `${typeof x} ${identities.get(x)}`;
}
const holdsValues = (t: Tensor): boolean => isLeaf(t) && (t.attrs as LeafAttrs).storage !== undefined;

/**
 * Everything that makes another trace of a function: tree structure, shapes, dtypes, static values; and the tensors that
 * hold no values yet. One walk, since every call makes it.
 */
export function signature(args: readonly unknown[]): { readonly key: string; readonly recipes: readonly Tensor[] } {
  const parts: string[] = [];
  const recipes: Tensor[] = [];
  const walk = (x: unknown): void => {
    if (isTensor(x)) {
      parts.push(x.dtype, x.shape.join('x'));
      if (!holdsValues(x)) recipes.push(x);
    } else if (isNode(x)) {
      parts.push(Array.isArray(x) ? '[' : '{');
      for (const [k, v] of Object.entries(x)) {
        parts.push(k);
        walk(v);
      }
      parts.push(';');
    } else parts.push(staticText(x));
  };
  for (const a of args) walk(a);
  // no key and no text above holds this character
  return { key: parts.join('\0'), recipes };
}

/** Whether recipes belong to a trace that is still open: below them stands a hole, or another name for a value. */
export const areTraced = (recipes: readonly Tensor[]): boolean =>
  topo(recipes).some(
    (t) => (isLeaf(t) && !holdsValues(t)) || (t.op.kind === 'primitive' && t.op.form.kind === 'identity'),
  );
