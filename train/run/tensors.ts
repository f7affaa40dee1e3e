/** A run's tensors on the host: the state's journey to and from a checkpoint, modules without padding, the best weights. */
import { z } from 'zod';
import { entries, fromPaths, read, type Tensor, tensor } from '../../core/index.ts';
import {
  type Field,
  type HostModule,
  type HostTensor,
  mapFields,
  momentFields,
  type Params,
  type Place,
} from '../../selora/methods/method.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { type Chosen, fieldsOf } from '../step/ranks.ts';
import { type Network, networks, type PerNetwork, type Ranks, type Slot, type State } from '../step/step.ts';

/** What was trained of every module, in the order of the run. */
export type HostModules = PerNetwork<ReadonlyMap<string, HostModule>>;

const host = async (t: Tensor): Promise<HostTensor> => ({ shape: t.shape, data: (await read(t)) as Float32Array });

/** The first `rank` ranks of a tensor along the axis that counts them. */
function cut({ shape, data }: HostTensor, axis: number | null, rank: number): HostTensor {
  if (axis === null) return { shape, data: Float32Array.from(data) };
  const inner = shape.slice(axis + 1).reduce((n, side) => n * side, 1);
  const [from, to] = [shape[axis]! * inner, rank * inner];
  const out = new Float32Array((data.length / from) * to);
  for (let i = 0; i * to < out.length; i++) out.set(data.subarray(i * from, i * from + to), i * to);
  return { shape: shape.map((side, i) => (i === axis ? rank : side)), data: out };
}

/** What was trained, without padding. */
export async function unpadded(chosen: Chosen, state: State, ranks: Ranks): Promise<HostModules> {
  const fields = fieldsOf(chosen);
  const one = async (path: string, { p }: Slot, rank: number): Promise<[string, HostModule]> => [
    path,
    {
      rank,
      fields: Object.fromEntries(
        await Promise.all(
          mapFields(async (t: Tensor, { axis }, name) => [name, cut(await host(t), axis, rank)] as const, p, fields),
        ),
      ),
    },
  ];
  const network = async (n: Network) =>
    new Map(await Promise.all(Object.entries(state[n]).map(([path, slot]) => one(path, slot, ranks[n][path]!))));
  return { unet: await network('unet'), text: await network('text') };
}

/** parameters have their own names in a checkpoint, moments have an `m` or `v` before them */
const GROUPS = { p: '', m: 'm', v: 'v' } as const;
type Group = keyof typeof GROUPS;
const groups = Object.keys(GROUPS) as Group[];

/** The state's tensors by name, for a checkpoint. Module paths hold dots, so parts are joined by `|`. */
export async function stateTensors(state: State): Promise<Map<string, HostTensor>> {
  const named = networks.flatMap((n) =>
    Object.entries(state[n]).flatMap(([path, slot]): (readonly [string, Tensor])[] => [
      ...groups.flatMap((g) =>
        entries<Tensor>(slot[g]).map(([name, t]) => [`${n}|${path}|${GROUPS[g]}${name}`, t] as const),
      ),
      [`${n}|${path}|age`, slot.age],
    ]),
  );
  return new Map(await Promise.all(named.map(async ([name, t]) => [name, await host(t)] as const)));
}

/** Ranks as a checkpoint holds them. */
const rank = z.int().min(0).max(4096);
export const ranksSchema = z.object({ unet: z.record(z.string(), rank), text: z.record(z.string(), rank) });

/**
 * The state of a checkpoint, modules in the order of the run (the order of sums depends on it).
 * @throws RangeError naming the module: a field is missing, of another shape, or without room for its rank
 */
export function stateFrom(
  { method, settings }: Chosen,
  tensors: ReadonlyMap<string, HostTensor>,
  ranks: Ranks,
  linears: ModelPlaces,
): State {
  const module = (n: Network, path: string, place: Place): Slot => {
    const wrong = (what: string) =>
      new RangeError(`the checkpoint has ${what} of ${n}.${path}: was --targets changed?`);
    const age = tensors.get(`${n}|${path}|age`);
    const [capacity] = age?.shape ?? [];
    if (!age || capacity === undefined) throw wrong('no age');
    const rank = ranks[n][path];
    if (rank === undefined || !(rank >= method.leastRank(settings) && rank <= capacity)) throw wrong('no rank');
    const get = (name: string, { shape }: Field): Tensor => {
      const found = tensors.get(`${n}|${path}|${name}`);
      if (!found) throw wrong(`no ${name}`);
      if (found.shape.join() !== shape.join()) throw wrong(`another shape [${found.shape.join(', ')}] of ${name}`);
      return tensor(found.data, found.shape);
    };
    const fields = method.fields(place, capacity, settings);
    const tree = (g: Group) =>
      fromPaths(
        entries<Field>(g === 'p' ? fields : momentFields(fields)).map(
          ([name, field]) => [name, get(GROUPS[g] + name, field)] as const,
        ),
      ) as Params;
    return { p: tree('p'), m: tree('m'), v: tree('v'), age: tensor(age.data, age.shape) };
  };
  const network = (n: Network) =>
    Object.fromEntries([...linears[n]].map(([path, place]) => [path, module(n, path, place)]));
  return { unet: network('unet'), text: network('text') };
}

/** The best validated modules by name, beside the state in its checkpoint. */
export const bestTensors = (best: HostModules): Map<string, HostTensor> =>
  new Map(
    networks.flatMap((n) =>
      [...best[n]].flatMap(([path, { fields }]) =>
        Object.entries(fields).map(([name, t]): [string, HostTensor] => [`best|${n}|${path}|${name}`, t]),
      ),
    ),
  );

/**
 * The best validated modules of a checkpoint, in the order of the run.
 * @throws RangeError naming the module that is missing or of another shape
 */
export function bestFrom(
  { method, settings }: Chosen,
  tensors: ReadonlyMap<string, HostTensor>,
  linears: ModelPlaces,
): HostModules {
  const module = (n: Network, path: string, place: Place): HostModule => {
    const get = (name: string) => tensors.get(`best|${n}|${path}|${name}`);
    const names = entries<Field>(method.fields(place, 1, settings));
    const ranked = names.find(([, { axis }]) => axis !== null);
    const rank = ranked ? get(ranked[0])?.shape[ranked[1].axis!] : 1;
    const expected = rank === undefined ? [] : entries<Field>(method.fields(place, rank, settings));
    const found = expected.map(([name, { shape }]) => ({ name, t: get(name), shape: shape.join() }));
    if (
      rank === undefined ||
      rank < method.leastRank(settings) ||
      found.some(({ t, shape }) => t?.shape.join() !== shape)
    )
      throw new RangeError(`the checkpoint has no best weights of ${n}.${path}: was --targets changed?`);
    return { rank, fields: Object.fromEntries(found.map(({ name, t }) => [name, t!])) };
  };
  const network = (n: Network) =>
    new Map([...linears[n]].map(([path, place]): [string, HostModule] => [path, module(n, path, place)]));
  return { unet: network('unet'), text: network('text') };
}
