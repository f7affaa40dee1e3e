/** The host's side of a run: ranks, capacity, history, best; and the state's journey to and from a checkpoint. */
import { z } from 'zod';
import { type Backend, concat, entries, evaluate, read, type Tensor, tensor, zeros } from '../core/index.ts';
import { type Adapter, type Adapters, foldKey, type HostKey, hostKey, initAdapters } from '../selora/adapter.ts';
import { candidate, padAdapter } from '../selora/expand.ts';
import { type Decision, decide, scoresOf } from '../selora/fisher.ts';
import type { RunConfig } from './config.ts';
import type { Linears } from './model.ts';
import {
  type Candidates,
  type FisherSums,
  mapModules,
  type Network,
  networks,
  type PerNetwork,
  type Slot,
  type State,
} from './step.ts';

/** A fresh slot around an adapter, padded to a capacity: moments zero, every rank of age 0. */
export function slotOf(adapter: Adapter, capacity: number): Slot {
  const { A, B } = padAdapter(adapter, capacity);
  const none = (like: Tensor) => zeros(like.shape, like.dtype);
  return { A, B, mA: none(A), vA: none(A), mB: none(B), vB: none(B), age: zeros([capacity], A.dtype) };
}
/** The same state with room for more ranks; values on the backend. */
export function padState(s: State, capacity: PerNetwork<number>, backend: Backend): State {
  const grown = mapModules((t: Slot, _path, network): Slot => {
    const c = capacity[network];
    const pad = (A: Tensor, B: Tensor) => padAdapter({ A, B }, c);
    const [p, m, v] = [pad(t.A, t.B), pad(t.mA, t.mB), pad(t.vA, t.vB)];
    const room = c - t.age.shape[0]!;
    const age = room > 0 ? concat([t.age, zeros([room], t.age.dtype)], 0) : t.age;
    return { A: p.A, B: p.B, mA: m.A, mB: m.B, vA: v.A, vB: v.B, age };
  }, s);
  return evaluate(grown, backend);
}

export type Ranks = PerNetwork<{ readonly [path: string]: number }>;

/** SeLoRA keeps one free slot for the candidate and grows by fours, so that programs are rarely rebuilt. */
export const capacityFor = (ranks: Ranks, method: RunConfig['method']): PerNetwork<number> => {
  const of = (r: { readonly [path: string]: number }): number => {
    const most = Math.max(0, ...Object.values(r));
    return method === 'lora' ? Math.max(1, most) : Math.ceil((most + 1) / 4) * 4;
  };
  return { unet: of(ranks.unet), text: of(ranks.text) };
};
export const totalRankOf = (r: Ranks): number =>
  [...Object.values(r.unet), ...Object.values(r.text)].reduce((a, b) => a + b, 0);

export function startState(c: RunConfig, linears: Linears, backend: Backend): { state: State; ranks: Ranks } {
  const key = foldKey(hostKey(c.seed), 'adapters');
  const fresh = {
    unet: initAdapters(foldKey(key, 'unet'), linears.unet, c.rank, { a: c.gainA }),
    text: initAdapters(foldKey(key, 'text'), linears.text, c.rank, { a: c.gainA }),
  };
  const ranks = mapModules((_a: Adapter) => c.rank, fresh);
  const capacity = capacityFor(ranks, c.method);
  return {
    state: evaluate(
      mapModules((a: Adapter, _p, n) => slotOf(a, capacity[n]), fresh),
      backend,
    ),
    ranks,
  };
}

/** K of every module and the one-hot row of the slot it is tried in. */
export function drawCandidates(
  c: RunConfig,
  state: State,
  ranks: Ranks,
  step: number,
): { readonly candidates: Candidates; readonly keys: PerNetwork<{ readonly [path: string]: string }> } {
  const root: HostKey = foldKey(hostKey(c.seed), 'test');
  const drawn = mapModules((s: Slot, path, network) => {
    const { K, key } = candidate(foldKey(root, network), path, step, s.A.shape[0]!, { a: c.gainA });
    const row = new Float32Array(s.A.shape[1]!);
    row[ranks[network][path]!] = 1;
    return { K, slot: tensor(row, [1, row.length]), key };
  }, state);
  return { candidates: mapModules(({ K, slot }) => ({ K, slot }), drawn), keys: mapModules(({ key }) => key, drawn) };
}

/** Reads the Fisher sums and decides; one budget for both networks. */
export async function judge(
  c: RunConfig,
  sums: FisherSums,
  ranks: Ranks,
  keys: PerNetwork<{ readonly [path: string]: string }>,
): Promise<Decision[]> {
  const rows = await Promise.all(
    networks.flatMap((n) =>
      Object.entries(sums[n]).map(async ([path, { a, b }]) => ({
        module: `${n === 'unet' ? 'unet' : 'text_encoder'}.${path}`,
        rank: ranks[n][path]!,
        scores: scoresOf(await read(a), await read(b), ranks[n][path]!),
        key: keys[n][path]!,
      })),
    ),
  );
  return decide(rows, { lambda: c.lambda, ...(c.budget === null ? {} : { budget: c.budget }) });
}
/** network and path of a decision's module */
export function moduleOf(name: string): { readonly network: Network; readonly path: string } {
  const at = name.indexOf('.');
  return { network: name.slice(0, at) === 'unet' ? 'unet' : 'text', path: name.slice(at + 1) };
}

/** Accepted candidates move into A, ranks grow by one, and the state gets room for the next test. */
export function grow(
  c: RunConfig,
  state: State,
  ranks: Ranks,
  candidates: Candidates,
  decisions: readonly Decision[],
  install: (s: State, c: Candidates) => State,
  backend: Backend,
): { readonly state: State; readonly ranks: Ranks; readonly padded: boolean } {
  const grown = new Set(decisions.filter((d) => d.expanded).map((d) => d.module));
  if (grown.size === 0) return { state, ranks, padded: false };
  const name = (n: Network, p: string) => `${n === 'unet' ? 'unet' : 'text_encoder'}.${p}`;
  const accepted = mapModules(
    ({ K, slot }, p, n) => ({
      K,
      slot: grown.has(name(n, p)) ? slot : tensor(new Float32Array(slot.shape[1]!), slot.shape),
    }),
    candidates,
  );
  const next = mapModules((r: number, p, n) => r + (grown.has(name(n, p)) ? 1 : 0), ranks);
  const installed = install(state, accepted);
  const [old, room] = [capacityFor(ranks, c.method), capacityFor(next, c.method)];
  const padded = room.unet > old.unet || room.text > old.text;
  return { state: padded ? padState(installed, room, backend) : installed, ranks: next, padded };
}

/** Adapters without padding, as plain numbers. */
export async function unpadded(
  state: State,
  ranks: Ranks,
): Promise<
  PerNetwork<
    ReadonlyMap<
      string,
      {
        readonly A: Float32Array;
        readonly B: Float32Array;
        readonly rank: number;
        readonly dIn: number;
        readonly dOut: number;
      }
    >
  >
> {
  const one = async (network: Network) => {
    const out = new Map<string, { A: Float32Array; B: Float32Array; rank: number; dIn: number; dOut: number }>();
    for (const [path, s] of Object.entries(state[network])) {
      const rank = ranks[network][path]!;
      const [dIn, capacity] = s.A.shape as [number, number];
      const dOut = s.B.shape[1]!;
      const [wide, tall] = [await read(s.A), await read(s.B)];
      const A = new Float32Array(dIn * rank);
      for (let i = 0; i < dIn; i++) for (let r = 0; r < rank; r++) A[i * rank + r] = wide[i * capacity + r]!;
      out.set(path, { A, B: Float32Array.from(tall.subarray(0, rank * dOut)), rank, dIn, dOut });
    }
    return out;
  };
  return { unet: await one('unet'), text: await one('text') };
}
/** The adapters as trees of tensors, unpadded. */
export async function adapterTrees(state: State, ranks: Ranks): Promise<PerNetwork<Adapters>> {
  const plain = await unpadded(state, ranks);
  const tree = (
    m: ReadonlyMap<string, { A: Float32Array; B: Float32Array; rank: number; dIn: number; dOut: number }>,
  ): Adapters =>
    Object.fromEntries(
      [...m].map(([p, a]) => [p, { A: tensor(a.A, [a.dIn, a.rank]), B: tensor(a.B, [a.rank, a.dOut]) }]),
    );
  return { unet: tree(plain.unet), text: tree(plain.text) };
}

/** The state's tensors by name, for a checkpoint. Module paths hold dots, so parts are joined by `|`. */
export async function stateTensors(
  state: State,
): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const out = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const n of networks)
    for (const [path, slot] of Object.entries(state[n]))
      for (const [field, t] of entries<Tensor>(slot))
        out.set(`${n}|${path}|${field}`, { shape: t.shape, data: (await read(t)) as Float32Array });
  return out;
}
const rank = z.int().min(1).max(4096);
/** Ranks as a checkpoint holds them. */
export const ranksSchema = z.object({ unet: z.record(z.string(), rank), text: z.record(z.string(), rank) });

type StoredTensor = { readonly shape: readonly number[]; readonly data: Float32Array };

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
