/** A derivative of one's own: the function says what it computes, what it keeps, and what its cotangents are. */
import { MissingRuleError, ShapeError } from '../ir/errors.ts';
import { bindAll, type Composite, hole, type Tensor } from '../ir/tensor.ts';
import { leaves, type Tree, unflatten } from '../ir/tree.ts';
import { mapAll } from '../ops/batching.ts';
import { alias } from '../ops/control.ts';
import { zeros } from '../ops/fill.ts';
import { add, cos, mul, sin } from '../ops/math.ts';
import { type ClosedBody, close, instantiate, specsOf } from './closed.ts';
import { pullbackWanted } from './grad.ts';
import { vmap } from './vmap.ts';

type Cts = readonly (Tensor | undefined)[];

interface CustomAttrs extends ClosedBody {
  /** how many results the caller sees; the others are kept for the derivative */
  readonly seen: number;
  /** how many inputs are arguments; the others were captured and have no derivative */
  readonly given: number;
  /** (what was kept, cotangents of the results) → cotangents of the arguments */
  readonly backward: (kept: readonly Tensor[], gs: readonly Tensor[]) => Cts;
}

export const customVjpOp: Composite<CustomAttrs> = {
  kind: 'composite',
  name: 'customVjp',
  aliases: ['custom_vjp', 'custom gradient'],
  doc: 'a closed function with a derivative of its own',
  formula: 'y, kept = forward(x);  dx = backward(kept, g)',
  shape: (inputs, a) => specsOf(a, inputs),
  body: (inputs, a) => instantiate(a, inputs),
  vjp(gs, inputs, a, outs, wanted = inputs.map(() => true)) {
    const total: (Tensor | undefined)[] = inputs.map(() => undefined);
    const own = gs.slice(0, a.seen);
    if (own.some((g) => g !== undefined)) {
      const captured = inputs.find((_, i) => i >= a.given && wanted[i]);
      if (captured)
        throw new MissingRuleError(
          `customVjp: the function closes over ${captured.label ?? 'a tensor'} that is differentiated: make it an argument`,
        );
      const cts = own.map((g, i) => g ?? zeros(outs[i]!.shape, outs[i]!.dtype));
      for (const [i, g] of a.backward(outs.slice(a.seen), cts).entries()) total[i] = g;
    }
    // second derivatives: what was kept is differentiated as it was computed
    const kept = gs.slice(a.seen);
    if (kept.some((g) => g !== undefined)) {
      const fresh = inputs.map((x, i) => (wanted[i] ? alias(x) : x));
      const back = pullbackWanted(instantiate(a, fresh).slice(a.seen), kept, fresh, wanted);
      for (const [i, g] of back.entries()) if (g) total[i] = total[i] ? add(total[i], g) : g;
    }
    return total;
  },
  batch(size, inputs, mapped, a) {
    const all = mapAll(size, inputs, mapped);
    const holes = all.map((x) => hole(x, x.label));
    const axes = (xs: readonly Tensor[]): number[] => xs.map(() => 0);
    const results = vmap((...xs: Tensor[]) => instantiate(a, xs), axes(holes))(...holes);
    const backward = (kept: readonly Tensor[], gs: readonly Tensor[]): Cts => {
      const both = [...kept, ...gs];
      const given: boolean[] = [];
      const back = vmap((...xs: Tensor[]) => {
        const cts = a.backward(xs.slice(0, kept.length), xs.slice(kept.length));
        given.push(...cts.map((g) => g !== undefined));
        return cts.filter((g) => g !== undefined);
      }, axes(both))(...both);
      let at = 0;
      return given.map((there) => (there ? back[at++] : undefined));
    };
    return bindAll(customVjpOp, all, { ...a, holes, results, backward });
  },
  sample: (pick) => {
    const h = hole({ shape: [pick(1, 4)], dtype: 'f64' });
    return {
      operands: [{ shape: h.shape, dtype: 'f64' }],
      attrs: {
        holes: [h],
        results: [sin(h), h],
        seen: 1,
        given: 1,
        backward: ([x], [g]) => [mul(g!, cos(x!))],
      },
    };
  },
};

/**
 * `customVjp(forward, backward)` → a function with a derivative of its own: forward(...args) → [y, kept], backward(kept, g)
 * → one cotangent for each argument, of its structure and shapes. Arguments, y and kept are trees; what is kept is computed
 * only where somebody differentiates. It maps, nests and is differentiated twice (through what it keeps).
 * @throws ShapeError when a cotangent does not fit its argument; MissingRuleError when the function closes over a tensor that
 * is differentiated
 * @example const clipped = customVjp((x: Tensor) => [x, {}], (_kept, g) => [clip(g, -1, 1)]); // y = x, dx = clip(g)
 */
export function customVjp<A extends readonly Tree<Tensor>[], Y extends Tree<Tensor>, K extends Tree<Tensor>>(
  forward: (...args: A) => readonly [Y, K],
  backward: (kept: K, g: Y) => A,
): (...args: A) => Y {
  return (...args) => {
    const { holes, results, inputs, given, y: pair } = close((...xs: A) => forward(...xs) as unknown as [Y, K], args);
    const [y, kept] = pair as unknown as [Y, K];
    const seen = leaves<Tensor>(y).length;
    const rule = (saved: readonly Tensor[], gs: readonly Tensor[]): Cts => {
      const cts = backward(unflatten(kept, saved), unflatten(y, gs));
      const flat = leaves<Tensor>(cts as unknown as Tree<Tensor>);
      const want = holes.slice(0, given);
      // in a mapped rule shapes are those of one sample, as they are here
      const bad = want.findIndex((h, i) => flat[i]?.shape.join() !== h.shape.join());
      if (flat.length !== given || bad >= 0)
        throw new ShapeError(
          `customVjp: backward must return one cotangent for each argument: ${flat.length} for ${given}` +
            (bad >= 0 ? `, number ${bad} is [${flat[bad]?.shape ?? ''}] for [${want[bad]!.shape}]` : ''),
        );
      return flat;
    };
    const outs = bindAll(customVjpOp, inputs, { holes, results, seen, given, backward: rule });
    return unflatten(y, outs.slice(0, seen));
  };
}
