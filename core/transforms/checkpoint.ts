/**
 * Rematerialisation. `checkpoint(f)` closes f over its captures into one node; forward it is f, backward f is run again
 * from its inputs, behind a barrier that makes the second run wait for the cotangent.
 */
import { bindAll, type Composite, hole, type Tensor } from '../ir/tensor.ts';
import { type Tree, unflatten } from '../ir/tree.ts';
import { barrier } from '../ops/control.ts';
import { mul, sin } from '../ops/math.ts';
import { type ClosedBody, close, instantiate, specsOf } from './closed.ts';
import { pullbackWanted } from './grad.ts';

export const checkpointOp: Composite<ClosedBody> = {
  kind: 'composite',
  name: 'checkpoint',
  doc: 'a closed function whose intermediates are recomputed in the backward pass',
  formula: 'y = f(x)',
  takesStored: true,
  shape: (inputs, b) => specsOf(b, inputs),
  body: (inputs, b) => instantiate(b, inputs),
  vjp(gs, inputs, b, _outs, wanted = inputs.map(() => true)) {
    const known = gs.filter((g) => g !== undefined);
    const again = barrier([...inputs, ...known]);
    const fresh = again.slice(0, inputs.length);
    let at = inputs.length;
    const cts = gs.map((g) => (g ? again[at++] : undefined));
    return pullbackWanted(instantiate(b, fresh), cts, fresh, wanted);
  },
  sample: (pick) => {
    const h = hole({ shape: [pick(1, 4)], dtype: 'f64' });
    return { operands: [{ shape: h.shape, dtype: 'f64' }], attrs: { holes: [h], results: [mul(sin(h), h)] } };
  },
};

/** `checkpoint(f)(...args)`: as f, but keeps only its arguments for the backward pass. Costs one more forward. */
export function checkpoint<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>>(
  f: (...args: A) => Y,
): (...args: A) => Y {
  return (...args) => {
    const { holes, results, inputs, y } = close(f, args);
    return unflatten(y, bindAll(checkpointOp, inputs, { holes, results }));
  };
}
