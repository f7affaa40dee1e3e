/** The host's side of a run: ranks, capacity, candidates, decisions, growth. */
import { type Backend, concat, evaluate, type Tensor, tensor, zeros } from '../../core/index.ts';
import { type Adapter, foldKey, type HostKey, hostKey, initAdapters } from '../../selora/adapter.ts';
import { candidate, padAdapter } from '../../selora/expand.ts';
import { type Decision, decide, type Scores, scoresOf } from '../../selora/fisher.ts';
import { ranksByHand } from '../../selora/targets.ts';
import type { RunConfig } from '../config/config.ts';
import type { Linears } from '../model/model.ts';
import {
  type Candidates,
  type HostSums,
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

/** The ranks a run begins with. @throws RangeError naming the pair of --ranks that matches nothing */
export const ranksAtStart = (c: Pick<RunConfig, 'rank' | 'ranks'>, { unet, text }: Linears): Ranks =>
  ranksByHand(c.ranks, [...unet.keys()], [...text.keys()], c.rank);

export function startState(c: RunConfig, linears: Linears, backend: Backend): { state: State; ranks: Ranks } {
  const key = foldKey(hostKey(c.seed), 'adapters');
  const ranks = ranksAtStart(c, linears);
  const fresh = {
    unet: initAdapters(foldKey(key, 'unet'), linears.unet, (path) => ranks.unet[path]!, { a: c.gainA }),
    text: initAdapters(foldKey(key, 'text'), linears.text, (path) => ranks.text[path]!, { a: c.gainA }),
  };
  const capacity = capacityFor(ranks, c.method);
  return {
    state: evaluate(
      mapModules((a: Adapter, _p, n) => slotOf(a, capacity[n]), fresh),
      backend,
    ),
    ranks,
  };
}

export type Drawn = {
  readonly candidates: Candidates;
  readonly keys: PerNetwork<{ readonly [path: string]: string }>;
};
/** A column for every module by `draw`, and the one-hot row of the slot it is tried in. */
function drawWith(
  state: State,
  ranks: Ranks,
  draw: (network: Network, path: string, dIn: number) => { readonly K: Tensor; readonly key: string },
): Drawn {
  const drawn = mapModules((s: Slot, path, network) => {
    const row = new Float32Array(s.A.shape[1]!);
    row[ranks[network][path]!] = 1;
    return { ...draw(network, path, s.A.shape[0]!), slot: tensor(row, [1, row.length]) };
  }, state);
  return { candidates: mapModules(({ K, slot }) => ({ K, slot }), drawn), keys: mapModules(({ key }) => key, drawn) };
}

/** K of every module, drawn afresh from seed, module and step. */
export function drawCandidates(c: RunConfig, state: State, ranks: Ranks, step: number): Drawn {
  const root: HostKey = foldKey(hostKey(c.seed), 'test');
  return drawWith(state, ranks, (n, path, dIn) => candidate(foldKey(root, n), path, step, dIn, { a: c.gainA }));
}

/**
 * K as the published code has it. `tested`: zeros until a module first grows (its initialisation is never run), then one
 * draw kept until it grows again. `installed`: another draw, the tested column is thrown away.
 */
export function drawPublished(c: RunConfig, state: State, ranks: Ranks, what: 'tested' | 'installed'): Drawn {
  const paths = { unet: Object.keys(state.unet), text: Object.keys(state.text) };
  const first = ranksByHand(c.ranks, paths.unet, paths.text, c.rank);
  const root: HostKey = foldKey(hostKey(c.seed), `published ${what}`);
  return drawWith(state, ranks, (n, path, dIn) => {
    const rank = ranks[n][path]!;
    if (what === 'tested' && rank === first[n][path])
      return { K: tensor(new Float32Array(dIn), [dIn, 1]), key: 'zero' };
    return candidate(foldKey(root, n), path, rank, dIn, { a: c.gainA });
  });
}

/** `unet.` or `text_encoder.` and the path: how a module is called outside the program. */
export const moduleName = (n: Network, path: string): string => `${n === 'unet' ? 'unet' : 'text_encoder'}.${path}`;

/** Scores of every module from the sums of a test. */
export const scoresFrom = (sums: HostSums, ranks: Ranks): PerNetwork<{ readonly [path: string]: Scores }> =>
  mapModules(({ a, b, signal }, path, n) => scoresOf(a, b, ranks[n][path]!, signal), sums);

/** Decides which modules grow; one budget for both networks. */
export function judge(
  c: Pick<RunConfig, 'lambda' | 'budget' | 'compat'>,
  scores: PerNetwork<{ readonly [path: string]: Scores }>,
  ranks: Ranks,
  keys: PerNetwork<{ readonly [path: string]: string }>,
): Decision[] {
  const rows = networks.flatMap((n) =>
    Object.entries(scores[n]).map(([path, s]) => ({
      module: moduleName(n, path),
      rank: ranks[n][path]!,
      scores: s,
      key: keys[n][path]!,
    })),
  );
  return decide(rows, {
    lambda: c.lambda,
    atLambda: c.compat === 'published-code',
    ...(c.budget === null ? {} : { budget: c.budget }),
  });
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
  const accepted = mapModules(
    ({ K, slot }, p, n) => ({
      K,
      slot: grown.has(moduleName(n, p)) ? slot : tensor(new Float32Array(slot.shape[1]!), slot.shape),
    }),
    candidates,
  );
  const next = mapModules((r: number, p, n) => r + (grown.has(moduleName(n, p)) ? 1 : 0), ranks);
  const installed = install(state, accepted);
  const [old, room] = [capacityFor(ranks, c.method), capacityFor(next, c.method)];
  const padded = room.unet > old.unet || room.text > old.text;
  return { state: padded ? padState(installed, room, backend) : installed, ranks: next, padded };
}
