/**
 * Functions that stay one node. `once(f)` is traced once for arguments of the same shapes, and a program lowers it once for
 * operands that lie alike: for what is applied to hundreds of leaves, an update rule above all. Its derivatives and what
 * `vmap` makes of it stay one node, too.
 */
import { CoreError } from '../ir/errors.ts';
import { areTraced, signature } from '../ir/signature.ts';
import { bindAll, type Composite, hole, type Tensor } from '../ir/tensor.ts';
import { leaves, type Tree, unflatten } from '../ir/tree.ts';
import { mul, sin } from '../ops/math.ts';
import { type ClosedBody, close, instantiate, specsOf } from './closed.ts';
import { pullbackWanted } from './grad.ts';
import { vmap } from './vmap.ts';

/** A function made of another; `there` says which of its results there are. */
interface Derived {
  readonly body: ClosedBody;
  readonly there: readonly boolean[];
}
/** what was made of a body already: applications are told apart by their body, so that it is one object for all of them */
const derived = new WeakMap<ClosedBody, Map<string, Derived>>();
/** The function of these operands that `make` writes down as results of their holes, made once under this key. */
function derive(
  from: ClosedBody,
  key: string,
  operands: readonly Tensor[],
  make: (holes: readonly Tensor[]) => readonly (Tensor | undefined)[],
): readonly (Tensor | undefined)[] {
  const known = derived.get(from) ?? new Map<string, Derived>();
  derived.set(from, known);
  // the same body may be applied in another precision
  const full = `${key} ${operands.map(({ dtype }) => dtype)}`;
  let made = known.get(full);
  if (!made) {
    const holes = operands.map((x) => hole(x, x.label));
    const results = make(holes);
    made = { body: { holes, results: results.filter((r) => r !== undefined) }, there: results.map((r) => !!r) };
    known.set(full, made);
  }
  const outs = bindAll(onceOp, operands, made.body);
  let at = 0;
  return made.there.map((there) => (there ? outs[at++] : undefined));
}
const flags = (list: readonly boolean[]): string => list.map(Number).join('');

export const onceOp: Composite<ClosedBody> = {
  kind: 'composite',
  name: 'once',
  aliases: ['closed_call', 'pjit', 'call'],
  doc: 'a closed function that is traced and lowered once for all its applications',
  formula: 'y = f(x)',
  once: true,
  takesStored: true,
  shape: (inputs, b) => specsOf(b, inputs),
  body: (inputs, b) => instantiate(b, inputs),
  vjp(gs, inputs, b, _outs, wanted = inputs.map(() => true)) {
    const given = gs.filter((g) => g !== undefined);
    const key = `vjp ${flags(gs.map((g) => g !== undefined))} ${flags(wanted)}`;
    return derive(b, key, [...inputs, ...given], (holes) => {
      const xs = holes.slice(0, inputs.length);
      let at = inputs.length;
      const cts = gs.map((g) => (g ? holes[at++] : undefined));
      return pullbackWanted(instantiate(b, xs), cts, xs, wanted);
    });
  },
  batch(size, inputs, mapped, b) {
    const axes = mapped.map((m) => (m ? 0 : null));
    const outs = derive(b, `vmap ${size} ${flags(mapped)}`, inputs, (holes) =>
      vmap((...xs: Tensor[]) => instantiate(b, xs), axes)(...holes),
    );
    return outs as readonly Tensor[];
  },
  sample: (pick) => {
    const h = hole({ shape: [pick(1, 4)], dtype: 'f64' });
    return { operands: [{ shape: h.shape, dtype: 'f64' }], attrs: { holes: [h], results: [mul(sin(h), h)] } };
  },
};

/**
 * `once(f)(...args)`: as f, but traced only for trees and shapes it has not seen, and lowered once for operands that lie
 * alike. Tensors f captures keep their values, as in `compile`. Cost: one node an application; where it is differentiated,
 * its derivative computes what it needs of the values inside again.
 * @throws CoreError when f captures an argument of a function that is being traced: make it an argument of f
 * @example const move = once((p: Tensor, g: Tensor) => sub(p, mul(g, 0.1))); params.map((p, i) => move(p, grads[i]!))
 */
export function once<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
): (...args: A) => Y {
  type Traced = { readonly body: ClosedBody; readonly captured: readonly Tensor[]; readonly y: Y };
  const traced = new Map<string, Traced>();
  return (...args) => {
    const { key } = signature(args);
    let known = traced.get(key);
    if (!known) {
      const { holes, results, inputs, given, y } = close(f, args);
      const captured = inputs.slice(given);
      const foreign = captured.find((t) => areTraced([t]));
      if (foreign)
        throw new CoreError(
          `once: the function captures ${foreign.label ?? `${foreign.dtype}[${foreign.shape}]`}, which is another one's argument: make it an argument`,
        );
      known = { body: { holes, results }, captured, y };
      traced.set(key, known);
    }
    return unflatten(
      known.y,
      bindAll(onceOp, [...leaves<Tensor>(args as Tree<Tensor>), ...known.captured], known.body),
    );
  };
}
