/** The host's side of SeLoRA's tests: candidates, scores, decisions; the paper's procedure and that of the published code. */
import { type HostArray, type Tensor, tensor } from '../core/index.ts';
import { foldKey, type HostKey } from './adapter.ts';
import { candidate } from './expand.ts';
import { type Decision, decide, type RankSums, type Scores, scoresOf } from './fisher.ts';
import { inputsOf, ranksAtStart } from './methods/low-rank.ts';
import type { Now, Outcome, Passes, Ranks } from './methods/method.ts';
import { mapModules, mapNetworks, moduleName, type Network, networks, type PerModule } from './networks.ts';
import { type Memory, smooth } from './smooth.ts';
import type { Trial } from './trial.ts';

export type Growing = {
  readonly rank: number;
  readonly ranks: string | null;
  readonly gainA: number;
  readonly lambda: number;
  readonly budget: number | null;
  readonly fiEma: number;
  readonly compat: 'none' | 'published-code';
};
type At = Now<Memory>;
export type HostSums = PerModule<RankSums<HostArray>>;
type Tests = Passes<Trial, RankSums<HostArray>>;
type Decide = () => Promise<Outcome<Trial, Memory, Decision>>;

export type Drawn = { readonly candidates: PerModule<Trial>; readonly keys: PerModule<string> };
type Draw = (network: Network, path: string, dIn: number) => { readonly K: Tensor; readonly key: string };
/** [1, length]: 1 at a place, zeros where there is none */
function oneHot(at: number | undefined, length: number): Tensor {
  const row = new Float32Array(length);
  if (at !== undefined) row[at] = 1;
  return tensor(row, [1, length]);
}
/** A column for every module by `draw`, and the one-hot row of the rank it is tried in. */
function drawWith({ places, ranks, room }: Pick<At, 'places' | 'ranks' | 'room'>, draw: Draw): Drawn {
  const drawn = mapNetworks(
    (all, n) =>
      Object.fromEntries(
        [...all].map(([path, place]) => {
          return [path, { ...draw(n, path, inputsOf(place)), slot: oneHot(ranks[n][path], room[n][path]!) }];
        }),
      ),
    places,
  );
  return { candidates: mapModules(({ K, slot }) => ({ K, slot }), drawn), keys: mapModules(({ key }) => key, drawn) };
}

/** K of every module, drawn afresh from seed, module and step. */
export function drawCandidates(c: Pick<Growing, 'gainA'>, now: Omit<At, 'memories' | 'steps'>): Drawn {
  const root: HostKey = foldKey(now.key, 'test');
  return drawWith(now, (n, path, dIn) => candidate(foldKey(root, n), path, now.step, dIn, { a: c.gainA }));
}

/**
 * K as the published code has it. `tested`: zeros until a module first grows (its initialisation is never run), then one
 * draw kept until it grows again. `installed`: another draw, the tested column is thrown away.
 */
export function drawPublished(
  c: Pick<Growing, 'gainA' | 'rank' | 'ranks'>,
  now: Omit<At, 'memories' | 'step' | 'steps'>,
  what: 'tested' | 'installed',
): Drawn {
  const first = ranksAtStart(c, now.places);
  const root: HostKey = foldKey(now.key, `published ${what}`);
  return drawWith(now, (n, path, dIn) => {
    const rank = now.ranks[n][path]!;
    if (what === 'tested' && rank === first[n][path])
      return { K: tensor(new Float32Array(dIn), [dIn, 1]), key: 'zero' };
    return candidate(foldKey(root, n), path, rank, dIn, { a: c.gainA });
  });
}

/** Scores of every module from the sums of a test. */
export const scoresFrom = (sums: HostSums, ranks: Ranks): PerModule<Scores> =>
  mapModules(({ a, b, gain }, path, n) => scoresOf(a, b, ranks[n][path]!, gain), sums);

/** Decides which modules grow; one budget for both networks. */
export function judge(
  c: Pick<Growing, 'lambda' | 'budget' | 'compat'>,
  scores: PerModule<Scores>,
  ranks: Ranks,
  keys: PerModule<string>,
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

/** Smooths the scores of a test; memories of other modules stay. */
function smoothed(beta: number, scores: PerModule<Scores>, before: At['memories']) {
  if (beta === 0) return { scores, memories: before };
  const memories: Record<string, Memory> = { ...before };
  const out = mapModules((s: Scores, path, n) => {
    const name = moduleName(n, path);
    const next = smooth(before[name], s, beta);
    memories[name] = next.memory;
    return next.scores;
  }, scores);
  return { scores: out, memories };
}

/** Accepted candidates in the first free rank, for all other modules a row of zeros. */
const accepted = (
  candidates: PerModule<Trial>,
  grown: ReadonlySet<string>,
  ranks: Ranks,
  room: Ranks,
): PerModule<Trial> =>
  mapModules(
    ({ K }, path, n) => ({
      K,
      slot: oneHot(grown.has(moduleName(n, path)) ? ranks[n][path] : undefined, room[n][path]!),
    }),
    candidates,
  );

/** The rest of a test: smooth, decide, install. `columns` are those that grown modules get. */
export function conclude(
  c: Growing,
  { ranks, memories }: Pick<At, 'ranks' | 'memories'>,
  scores: PerModule<Scores>,
  keys: PerModule<string>,
  columns: PerModule<Trial>,
): Outcome<Trial, Memory, Decision> {
  const s = smoothed(c.fiEma, scores, memories);
  const decisions = judge(c, s.scores, ranks, keys);
  const grown = new Set(decisions.filter((d) => d.expanded).map((d) => d.module));
  // a module that has grown is another one: its scores begin anew
  const kept = Object.fromEntries(Object.entries(s.memories).filter(([name]) => !grown.has(name)));
  if (grown.size === 0) return { decisions, memories: kept, ranks };
  return {
    decisions,
    memories: kept,
    ranks: mapModules((r: number, path, n) => r + (grown.has(moduleName(n, path)) ? 1 : 0), ranks),
    install: (room) => accepted(columns, grown, ranks, room),
  };
}

/** The paper's test: scores from the backward pass of the step's own update; the tested column is the installed one. */
export function paperTest(passes: Tests, now: At, c: Growing): Decide {
  const { candidates, keys } = drawCandidates(c, now);
  const sums = passes.update(candidates);
  return async () => conclude(c, now, scoresFrom(await sums(), now.ranks), keys, candidates);
}

/**
 * The published code's test: FI(original) from the gradients before the update, FI(expanded) from a second pass over the
 * same batch after it; both square the batch gradient. Another column than the tested one is installed, and the module's
 * moments begin anew.
 */
export function publishedTest(passes: Tests, now: At, c: Growing): Decide {
  const { candidates, keys } = drawPublished(c, now, 'tested');
  const first = passes.measure(candidates);
  passes.update();
  const second = passes.measure(candidates);
  return async () => {
    const [original, expanded] = [scoresFrom(await first(), now.ranks), scoresFrom(await second(), now.ranks)];
    const scores = mapModules((o: Scores, path, n): Scores => {
      const e = expanded[n][path]!;
      // FI(expanded) − FI(original): may be negative here, since the update lies in between
      return { fiA: o.fiA, fiB: o.fiB, fiNew: e.fiA + e.fiB + e.fiNew - o.fiA - o.fiB };
    }, original);
    return conclude(c, now, scores, keys, drawPublished(c, now, 'installed').candidates);
  };
}
