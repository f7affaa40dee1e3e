/** The host's side of a run: ranks, capacity, candidates, decisions, growth. */
import { type Backend, concat, evaluate, read, type Tensor, tensor, zeros } from '../core/index.ts';
import { type Adapter, foldKey, type HostKey, hostKey, initAdapters } from '../selora/adapter.ts';
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
