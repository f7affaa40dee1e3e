/** The state of a run on the host's side: its start, the room for ranks in the programs, and more of it. */
import { type Backend, evaluate, leaves, type Tensor, type Tree, unflatten, zeros } from '../../core/index.ts';
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import { foldKey, hostKey } from '../../selora/adapter.ts';
import {
  type Fields,
  type Method,
  mapFields,
  momentFields,
  type Params,
  type Settings,
} from '../../selora/methods/method.ts';
import { methodOf } from '../../selora/methods/registry.ts';
import { padAxis, padParams } from '../../selora/pad.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import {
  mapModules,
  mapNetworks,
  type PerModule,
  type PerNetwork,
  type Ranks,
  type Slot,
  type State,
} from './state.ts';

/** A fresh slot around a module's parameters, padded to a capacity: moments zero, every rank of age 0. */
export function slotOf<P extends Params>(params: P, fields: Fields, capacity: number): Slot<P> {
  const p = padParams(params, fields, capacity);
  const none = (): P =>
    unflatten(
      p,
      mapFields((like: Tensor, { trained }) => zeros(trained ? like.shape : [], like.dtype), p as Tree<Tensor>, fields),
    );
  return { p, m: none(), v: none(), age: zeros([capacity], leaves(p as Tree<Tensor>)[0]!.dtype) };
}

/** Modules of a file that a run begins from. */
export type Initial = PerNetwork<ReadonlyMap<string, AdapterModule>>;
/** A method with its settings, as a run is made of them. */
export type Chosen<P extends Params = Params, X = unknown, S = unknown, H = unknown> = {
  readonly method: Method<P, Settings, X, S, H>;
  readonly settings: Settings;
  readonly initial?: Initial | undefined;
};
/** What a run's configuration chooses. @throws RangeError for a method there is not */
export const chosenOf = (c: Settings & { readonly method: string }, initial?: Initial): Chosen => ({
  method: methodOf(c.method),
  settings: c,
  initial,
});

/** Ranks at the start of a run. @throws RangeError naming the setting that does not fit these places */
export const startRanks = (
  { method, settings, initial }: Pick<Chosen, 'settings' | 'initial'> & { readonly method: Pick<Method, 'ranks'> },
  places: ModelPlaces,
): Ranks =>
  method.ranks(
    settings,
    places,
    initial &&
      mapNetworks((modules) => Object.fromEntries([...modules].map(([path, { rank }]) => [path, rank])), initial),
  );
/** A module's fields where only their names and axes matter, which are the same for every place. */
export const fieldsOf = ({
  method,
  settings,
}: Pick<Chosen, 'settings'> & { readonly method: Pick<Method, 'fields'> }) => method.fields([1, 1], 1, settings);

/** The same state with room for more ranks; what has enough stays the same tensor. Values on the backend. */
export function padState<P extends Params, X, S, H>(
  { method, settings }: Chosen<P, X, S, H>,
  s: State<P>,
  capacity: Ranks,
  backend: Backend,
): State<P> {
  const fields = method.fields([1, 1], 1, settings);
  const grown = mapModules((slot: Slot<P>, path, network): Slot<P> => {
    const c = capacity[network][path]!;
    const moments = (tree: P): P => padParams(tree, momentFields(fields), c);
    return { p: padParams(slot.p, fields, c), m: moments(slot.m), v: moments(slot.v), age: padAxis(slot.age, 0, c) };
  }, s);
  return evaluate(grown as never, backend) as State<P>;
}

/** Places for ranks that each module has in the programs. */
export const capacityFor = (
  ranks: Ranks,
  { method, settings }: Pick<Chosen, 'settings'> & { readonly method: Pick<Method, 'room'> },
): Ranks =>
  mapNetworks((of) => {
    const most = Math.max(0, ...Object.values(of));
    return Object.fromEntries(Object.entries(of).map(([path, own]) => [path, method.room(settings, most, own)]));
  }, ranks);

/**
 * The state a run begins with; `kept` is what the method's start keeps of every module it looked at. One that begins from a
 * file has the file's ranks and values.
 * @throws RangeError naming the setting that does not fit these linears
 */
export function startState<P extends Params, X, S, H>(
  { method, settings, initial, seed }: Chosen<P, X, S, H> & { readonly seed: number },
  linears: ModelPlaces,
  backend: Backend,
  kept?: PerModule<unknown>,
): { state: State<P>; ranks: Ranks } {
  const key = foldKey(hostKey(seed), 'adapters');
  const asked = startRanks({ method, settings, initial }, linears);
  const begin = kept && !initial ? method.begin : undefined;
  const ranks = begin?.ranks?.(kept!, asked, linears, settings) ?? asked;
  const plain = mapNetworks((places, n) => method.init(places, ranks[n], foldKey(key, n), settings), linears);
  const fresh = begin?.module
    ? mapModules((p: P, path, n) => begin.module!(kept![n][path]!, p, ranks[n][path]!, settings), plain)
    : plain;
  const capacity = capacityFor(ranks, { method, settings });
  const fields = method.fields([1, 1], 1, settings);
  const state = mapModules((p: P, path, n) => {
    const module = initial?.[n].get(path);
    return slotOf(module ? method.fromFile(module, settings, p) : p, fields, capacity[n][path]!);
  }, fresh);
  return { state: evaluate(state as never, backend) as State<P>, ranks };
}
