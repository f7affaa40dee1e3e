/** A run's tensors on the host: the state's journey to and from a checkpoint, adapters without padding, the best weights. */
import { z } from 'zod';
import { entries, read, type Tensor, tensor } from '../../core/index.ts';
import type { Linears } from '../model/model.ts';
import type { Ranks } from '../step/ranks.ts';
import { type Network, networks, type PerNetwork, type Slot, type State } from '../step/step.ts';

/** One adapter as plain numbers, row-major: A[d_in, rank], B[rank, d_out]. */
export interface HostAdapter {
  readonly A: Float32Array;
  readonly B: Float32Array;
  readonly rank: number;
  readonly dIn: number;
  readonly dOut: number;
}
export type HostAdapters = PerNetwork<ReadonlyMap<string, HostAdapter>>;

/** Adapters without padding, as plain numbers. */
export async function unpadded(state: State, ranks: Ranks): Promise<HostAdapters> {
  const one = async (network: Network) =>
    new Map(
      await Promise.all(
        Object.entries(state[network]).map(async ([path, s]): Promise<[string, HostAdapter]> => {
          const rank = ranks[network][path]!;
          const [dIn, capacity] = s.A.shape as [number, number];
          const dOut = s.B.shape[1]!;
          const [wide, tall] = await Promise.all([read(s.A), read(s.B)]);
          const A = new Float32Array(dIn * rank);
          for (let i = 0; i < dIn; i++) for (let r = 0; r < rank; r++) A[i * rank + r] = wide[i * capacity + r]!;
          return [path, { A, B: Float32Array.from(tall.subarray(0, rank * dOut)), rank, dIn, dOut }];
        }),
      ),
    );
  return { unet: await one('unet'), text: await one('text') };
}

/** The state's tensors by name, for a checkpoint. Module paths hold dots, so parts are joined by `|`. */
export async function stateTensors(state: State): Promise<Map<string, StoredTensor>> {
  const named = networks.flatMap((n) =>
    Object.entries(state[n]).flatMap(([path, slot]) =>
      [...entries<Tensor>(slot)].map(([field, t]) => [`${n}|${path}|${field}`, t] as const),
    ),
  );
  return new Map(
    await Promise.all(
      named.map(async ([name, t]) => [name, { shape: t.shape, data: (await read(t)) as Float32Array }] as const),
    ),
  );
}

const rank = z.int().min(1).max(4096);
/** Ranks as a checkpoint holds them. */
export const ranksSchema = z.object({ unet: z.record(z.string(), rank), text: z.record(z.string(), rank) });

export type StoredTensor = { readonly shape: readonly number[]; readonly data: Float32Array };

/**
 * The state of a checkpoint, modules in the order of the run (the order of sums depends on it).
 * @throws RangeError naming the module: a field is missing, of another shape, or without room for its rank
 */
export function stateFrom(tensors: ReadonlyMap<string, StoredTensor>, ranks: Ranks, linears: Linears): State {
  const module = (n: Network, path: string, [dOut, dIn]: readonly [number, number]): Slot => {
    const wrong = (what: string) =>
      new RangeError(`the checkpoint has ${what} of ${n}.${path}: was --targets changed?`);
    const capacity = tensors.get(`${n}|${path}|age`)?.shape[0];
    if (capacity === undefined) throw wrong('no age');
    if (!((ranks[n][path] ?? 0) >= 1 && ranks[n][path]! <= capacity)) throw wrong('no rank');
    const get = (field: keyof Slot, shape: readonly number[]): Tensor => {
      const found = tensors.get(`${n}|${path}|${field}`);
      if (!found) throw wrong(`no ${field}`);
      if (found.shape.join() !== shape.join()) throw wrong(`another shape [${found.shape.join(', ')}] of ${field}`);
      return tensor(found.data, found.shape);
    };
    const [wide, tall] = [
      [dIn, capacity],
      [capacity, dOut],
    ];
    return {
      A: get('A', wide!),
      B: get('B', tall!),
      mA: get('mA', wide!),
      vA: get('vA', wide!),
      mB: get('mB', tall!),
      vB: get('vB', tall!),
      age: get('age', [capacity]),
    };
  };
  const network = (n: Network) =>
    Object.fromEntries([...linears[n]].map(([path, shape]) => [path, module(n, path, shape)]));
  return { unet: network('unet'), text: network('text') };
}

/** The best validated adapters by name, beside the state in its checkpoint. */
export const bestTensors = (best: HostAdapters): Map<string, StoredTensor> =>
  new Map(
    networks.flatMap((n) =>
      [...best[n]].flatMap(([path, a]): [string, StoredTensor][] => [
        [`best|${n}|${path}|A`, { shape: [a.dIn, a.rank], data: a.A }],
        [`best|${n}|${path}|B`, { shape: [a.rank, a.dOut], data: a.B }],
      ]),
    ),
  );

/**
 * The best validated adapters of a checkpoint, modules in the order of the run.
 * @throws RangeError naming the module that is missing or of another shape
 */
export function bestFrom(tensors: ReadonlyMap<string, StoredTensor>, linears: Linears): HostAdapters {
  const network = (n: Network) =>
    new Map(
      [...linears[n]].map(([path, [dOut, dIn]]): [string, HostAdapter] => {
        const [A, B] = (['A', 'B'] as const).map((f) => tensors.get(`best|${n}|${path}|${f}`));
        const rank = A?.shape[1] ?? 0;
        if (!A || !B || rank < 1 || A.shape.join() !== [dIn, rank].join() || B.shape.join() !== [rank, dOut].join())
          throw new RangeError(`the checkpoint has no best weights of ${n}.${path}: was --targets changed?`);
        return [path, { A: A.data, B: B.data, rank, dIn, dOut }];
      }),
    );
  return { unet: network('unet'), text: network('text') };
}
