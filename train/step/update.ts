/**
 * The update of a step: gradients as they are taken, their norm, and Adam on every module by the method's rates. What it
 * makes of one module is traced and lowered once for all modules of its shapes.
 */
import {
  add,
  fold,
  leaves,
  less,
  max,
  mul,
  once,
  reshape,
  type Tensor,
  type Tree,
  unflatten,
  where,
} from '../../core/index.ts';
import { foldKey } from '../../selora/adapter.ts';
import { type Fields, type Made, mapFields, type Params } from '../../selora/methods/method.ts';
import { type AdamOptions, adamUpdate, clipFactor, globalNorm } from '../optimise/optimizer.ts';
import type { LossOptions } from './gradients.ts';
import {
  type Hyper,
  mapModules,
  moduleName,
  type Network,
  networks,
  type PerModule,
  type Slot,
  type State,
} from './state.ts';

/** What an update depends on beside the state. */
export interface UpdateOptions<P extends Params = Params, X = unknown, S = unknown, H = unknown>
  extends Pick<LossOptions<P, X, S, H>, 'method' | 'settings'> {
  readonly adam: AdamOptions;
  /** limit of the global gradient norm, 0 for none */
  readonly clip: number;
}

/** A number for each rank along the axis of a field that counts ranks. */
const along = (x: Tensor, like: Tensor, axis: number): Tensor =>
  reshape(
    x,
    like.shape.map((_, i) => (i === axis ? x.shape[0]! : 1)),
  );

/** What modules share of a field, for `tied` ones: all with this shape. */
const sharedBy = (name: string, { shape }: Tensor): string => `${name} ${shape.join()}`;

/** Gradients as the update takes them: those of tied fields added up, 0 for ranks that stand still; once each for the norm. */
function taken<P extends Params>(
  g: PerModule<P>,
  fields: Fields,
  still: (x: Tensor, axis: number | null, network: Network, path: string) => Tensor,
): { readonly g: PerModule<P>; readonly single: readonly Tensor[] } {
  const single: Tensor[] = [];
  const sums = new Map<string, Tensor>();
  for (const n of networks)
    for (const tree of Object.values(g[n]))
      mapFields(
        (x: Tensor, { trained, tied }, name) => {
          if (!trained || !tied) return;
          const key = `${n} ${sharedBy(name, x)}`;
          const before = sums.get(key);
          sums.set(key, before ? add(before, x) : x);
        },
        tree as Tree<Tensor>,
        fields,
      );
  const out = mapModules(
    (tree: P, path, n) =>
      unflatten(
        tree,
        mapFields(
          (x: Tensor, { trained, tied, axis }, name) => {
            if (!trained) return x;
            if (!tied) {
              const moved = still(x, axis, n, path);
              single.push(moved);
              return moved;
            }
            return sums.get(`${n} ${sharedBy(name, x)}`)!;
          },
          tree as Tree<Tensor>,
          fields,
        ),
      ),
    g,
  );
  return { g: out, single: [...single, ...sums.values()] };
}

/** What one module's update takes. */
type Moving<P> = {
  readonly slot: Slot<P>;
  readonly g: P;
  readonly rate: Tensor;
  /** that clips gradients */
  readonly factor?: Tensor;
  /** which ranks move, [ranks] of 0 and 1 */
  readonly ranks?: Tensor;
  /** for methods that do something after it */
  readonly made?: Omit<Made, 'rate'>;
};

/** One module after its update; ranks that stand still keep values and moments. */
function moved<P extends Params, X, S, H>(
  { method, settings, adam }: UpdateOptions<P, X, S, H>,
  fields: Fields,
  { slot, g, rate, factor, ranks, made }: Moving<P>,
): Slot<P> {
  const of = (tree: P) => leaves(tree as Tree<Tensor>);
  const [gs, ms, vs] = [of(g), of(slot.m), of(slot.v)];
  const rates = method.rates?.(settings) ?? {};
  const leavesOf = mapFields((p: Tensor, field, name) => ({ p, field, name }), slot.p as Tree<Tensor>, fields);
  const clipped = leavesOf.map(({ field }, i) => (factor && !field.measured ? mul(gs[i]!, factor) : gs[i]!));
  const ages = method.ages?.(slot.p, slot.age, settings) ?? {};
  const kept = (now: Tensor, before: Tensor, axis: number | null): Tensor =>
    ranks && axis !== null ? where(less(0, along(ranks, now, axis)), now, before) : now;
  const next = leavesOf.map(({ p, field: { axis, trained }, name }, i) => {
    const [m, v] = [ms[i]!, vs[i]!];
    if (!trained) return { p, m, v };
    const by = rates[name] ?? 1;
    const lr = by === 1 ? rate : mul(rate, by);
    const age = ages[name] ?? slot.age;
    // a field without ranks is as old as the oldest
    const to =
      axis === null
        ? adamUpdate(p, clipped[i]!, { m, v }, max(age), lr, adam)
        : adamUpdate(p, clipped[i]!, { m, v }, age, lr, adam, (x) => along(x, p, axis));
    return { p: kept(to.p, p, axis), m: kept(to.m, m, axis), v: kept(to.v, v, axis) };
  });
  const tree = (key: 'p' | 'm' | 'v'): P =>
    unflatten(
      slot.p,
      next.map((x) => x[key]),
    );
  const now: Slot<P> = { p: tree('p'), m: tree('m'), v: tree('v'), age: add(slot.age, ranks ?? 1) };
  return method.after && made ? method.after(now, unflatten(slot.p, clipped), { ...made, rate }, settings) : now;
}

/**
 * `updater(o)(s, gradients, hyper)`: the state after the update, and the norm of its gradients before clipping.
 * @throws TypeError for a method that asks which update it is where `hyper` does not say
 */
export function updater<P extends Params, X, S, H>(
  o: UpdateOptions<P, X, S, H>,
): (s: State<P>, gradients: PerModule<P>, hyper: Hyper) => { readonly state: State<P>; readonly norm: Tensor } {
  const { method, settings } = o;
  // which axis counts ranks, and what is trained, does not depend on the place
  const fields = method.fields([1, 1], 1, settings);
  const move = once((x: Moving<P>): Slot<P> => moved(o, fields, x));
  return (s, gradients, hyper) => {
    const moving = mapModules(({ p }: Slot<P>) => ({ ranks: method.moved?.(p, settings) }), s);
    const { g, single } = taken(gradients, fields, (x, axis, n, path) => {
      const { ranks } = moving[n][path]!;
      return ranks && axis !== null ? mul(x, along(ranks, x, axis)) : x;
    });
    const norm = globalNorm(single);
    const factor = o.clip > 0 ? clipFactor(norm, o.clip) : undefined;
    const told = method.after && hyper.made;
    if (method.after && !told) throw new TypeError(`${method.name}: the step is not told which it is`);
    const state = mapModules((slot: Slot<P>, path, network): Slot<P> => {
      const { ranks } = moving[network][path]!;
      const key = told && fold(told.key, foldKey([0, 0], moduleName(network, path))[0]);
      return move({
        slot,
        g: g[network][path]!,
        rate: hyper[network],
        ...(factor ? { factor } : {}),
        ...(ranks ? { ranks } : {}),
        ...(told && key ? { made: { ...told, key } } : {}),
      });
    }, s);
    return { state, norm };
  };
}
