/** The test of `--criterion gain`: a sketch of every module's gradient, its directions on two halves of the data, and who gets them. */
import { type HostArray, tensor } from '../../core/index.ts';
import { foldKey, normalNumbers } from '../adapter.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Decided, Now, Outcome, Passes, Place, Places, Ranks } from '../methods/method.ts';
import { mapModules, mapNetworks, moduleName, networks, type PerModule, type PerNetwork } from '../networks.ts';
import type { Trial } from '../trial.ts';
import { allot } from './allot.ts';
import { type Direction, directionsOf, rangeOf } from './directions.ts';
import type { Probe, Probed } from './probe.ts';

/** The settings of a run that the test reads. */
export type Gaining = {
  readonly budgetParameters: number | null;
  readonly growFirst: number;
  readonly growUntil: number;
  readonly testEvery: number;
  readonly probe: number;
  readonly lr?: number;
  readonly textLr?: number | null;
};
/** A row of the log: what the module was given, and from which numbers. */
export type Gained = Decided & {
  /** ranks it has more */
  readonly added: number;
  /** parameters of one rank */
  readonly cost: number;
  /** what the next rank would have lowered the loss by, per unit of learning rate; of a module that grew, the first given */
  readonly gain: number;
  /** length of the strongest direction of its gradient */
  readonly sigma: number;
  /** how much of the other half's gradient that direction catches, as a share of the most that one direction can */
  readonly caught: number;
};
type Rows = readonly [number, number];

/** d_in + d_out: the parameters of one rank */
export const costOf = (place: Place): number => inputsOf(place) + place[0];
const parametersOf = (ranks: Ranks, places: PerNetwork<Places>): number =>
  networks.reduce(
    (n, net) => n + [...places[net]].reduce((m, [path, place]) => m + ranks[net][path]! * costOf(place), 0),
    0,
  );
/** The parameters a run may have in all: as told, else those of LoRA of rank 4 on its linear layers (all, without any). */
export function budgetOf(c: Pick<Gaining, 'budgetParameters'>, places: PerNetwork<Places>): number {
  if (c.budgetParameters !== null) return c.budgetParameters;
  const all = networks.flatMap((n) => [...places[n].values()]);
  const linears = all.filter((place) => place.length === 2);
  return (linears.length > 0 ? linears : all).reduce((n, place) => n + 4 * costOf(place), 0);
}
/** @throws RangeError for a budget below what a run begins with */
export function checkBudget(c: Pick<Gaining, 'budgetParameters'>, ranks: Ranks, places: PerNetwork<Places>): void {
  const [has, most] = [parametersOf(ranks, places), budgetOf(c, places)];
  if (has > most)
    throw new RangeError(
      `--budget-parameters ${most}: the adapters begin with ${has} parameters, expected at least that`,
    );
}

/** how many tests come after the first */
const testsAfter = (c: Gaining, steps: number): number =>
  c.growFirst < 1 ? Math.floor((steps * c.growUntil) / c.testEvery) : 0;
/** whether a step tests: the first for `growFirst` of the budget, then every t-th until `growUntil` of the run */
export const isDue = (c: Gaining, step: number, steps: number): boolean =>
  (step === 1 && c.growFirst > 0) || (step % c.testEvery === 0 && step / c.testEvery <= testsAfter(c, steps));
/** how many steps test */
export const countOf = (c: Gaining, steps: number): number =>
  testsAfter(c, steps) + (c.growFirst > 0 && !(c.testEvery === 1 && testsAfter(c, steps) > 0) ? 1 : 0);
/** the share of the budget that may be in use after the test of a step */
export function shareAt(c: Gaining, step: number, steps: number): number {
  const tests = testsAfter(c, steps);
  const done = Math.min(tests, Math.floor(step / c.testEvery));
  return tests === 0 ? c.growFirst : c.growFirst + ((1 - c.growFirst) * done) / tests;
}

/** ranks a probe of a place has */
export const widthOf = (place: Place, probe: number): number => Math.min(probe, place[0], inputsOf(place));
const zeros = (shape: Rows) => tensor(new Float32Array(shape[0] * shape[1]), shape);
const host = (data: HostArray, shape: Rows) => ({ data, shape });
const modulesOf = (places: PerNetwork<Places>): PerModule<Place> =>
  mapNetworks((all) => Object.fromEntries(all), places);

/** K = 0 beside Gaussian rows Ω[q, d_out] of seed, module and step. */
function sketching(now: Pick<Now<never>, 'key' | 'step' | 'places'>, probe: number): PerModule<Probe> {
  return mapModules((place: Place, path, n) => {
    const [q, dOut] = [widthOf(place, probe), place[0]];
    const R = normalNumbers(foldKey(now.key, 'gain', n, path, now.step), q * dOut);
    return { K: zeros([inputsOf(place), q]), R: tensor(R, [q, dOut]) };
  }, modulesOf(now.places));
}

/** What a test decides from every module's directions. */
export function decideGain(
  c: Gaining,
  now: Pick<Now<never>, 'step' | 'steps' | 'places' | 'ranks'>,
  directions: PerModule<readonly Direction[]>,
): { readonly rows: Gained[]; readonly ranks: Ranks } {
  // a step is as long as the network's rate
  const rate = { unet: 1, text: c.textLr != null && c.lr ? c.textLr / c.lr : 1 };
  const offers = networks.flatMap((n) =>
    [...now.places[n]].map(([path, place]) => ({
      module: moduleName(n, path),
      gains: directions[n][path]!.map(({ gain }) => gain * rate[n]),
      cost: costOf(place),
    })),
  );
  const allowed = Math.floor(budgetOf(c, now.places) * shareAt(c, now.step, now.steps));
  const given = allot(offers, allowed - parametersOf(now.ranks, now.places));
  const ranks = mapModules((r: number, path, n) => r + given.get(moduleName(n, path))!, now.ranks);
  const found = networks.flatMap((n) => Object.entries(directions[n]).map(([path, d]) => ({ n, path, first: d[0] })));
  const rows = found.map(({ n, path, first }, i): Gained => {
    const { module, gains, cost } = offers[i]!;
    const added = given.get(module)!;
    return {
      module,
      expanded: added > 0,
      rankAfter: ranks[n][path]!,
      added,
      cost,
      gain: gains[0] ?? 0,
      sigma: first?.sigma ?? 0,
      caught: first?.caught ?? 0,
    };
  });
  return { rows, ranks };
}

/** Columns √2·u in the free ranks of every module that grows; for the others a row of zeros. */
function columns(
  now: Pick<Now<never>, 'places' | 'ranks'>,
  directions: PerModule<readonly Direction[]>,
  ranks: Ranks,
  room: PerNetwork<number>,
): PerModule<Trial> {
  return mapModules((place: Place, path, n) => {
    const [dIn, before] = [inputsOf(place), now.ranks[n][path]!];
    const taken = directions[n][path]!.slice(0, ranks[n][path]! - before);
    // one form for all, so that one program installs them
    const k = room[n];
    const [K, slot] = [new Float32Array(dIn * k), new Float32Array(k * k)];
    for (const [j, { u }] of taken.entries()) {
      for (let i = 0; i < dIn; i++) K[i * k + j] = Math.SQRT2 * u[i]!;
      slot[j * k + before + j] = 1;
    }
    return { K: tensor(K, [dIn, k]), slot: tensor(slot, [k, k]) };
  }, modulesOf(now.places));
}

/**
 * Three measurements and a decision. Q is sketched on the first half of the batches, G is projected on it for both halves:
 * the second half has no part in Q, so that what either half says of the other's directions is unbiased.
 */
export function gainTest(
  passes: Passes<Probe, Probed<HostArray>>,
  now: Now<never>,
  c: Gaining,
): () => Promise<Outcome<Trial, never, Gained>> {
  const half = Math.ceil(passes.batches / 2);
  const places = modulesOf(now.places);
  const sketch = passes.measure(sketching(now, c.probe), [0, half]);
  return async () => {
    const sketched = await sketch();
    const ranges = mapModules((place: Place, path, n) => {
      const { K, A } = sketched[n][path]!;
      const [dIn, rank, room] = [inputsOf(place), now.ranks[n][path]!, now.room[n]];
      const own = Float64Array.from({ length: dIn * rank }, (_, i) => A[Math.floor(i / rank) * room + (i % rank)]!);
      return rangeOf(host(K, [dIn, widthOf(place, c.probe)]), { data: own, shape: [dIn, rank] });
    }, places);
    const projecting = mapModules((place: Place, path, n): Probe => {
      const [dIn, q, Q] = [inputsOf(place), widthOf(place, c.probe), ranges[n][path]!];
      const K = new Float32Array(dIn * q);
      for (let i = 0; i < dIn; i++) for (let j = 0; j < Q.columns; j++) K[i * q + j] = Q.get(i, j);
      return { K: tensor(K, [dIn, q]), R: zeros([q, place[0]]) };
    }, places);
    const one = passes.measure(projecting, [0, half]);
    const two = passes.measure(projecting, [half, passes.batches]);
    const [first, second] = [await one(), await two()];
    const directions = mapModules((place: Place, path, n) => {
      const shape = [widthOf(place, c.probe), place[0]] as const;
      return directionsOf(ranges[n][path]!, host(first[n][path]!.R, shape), host(second[n][path]!.R, shape));
    }, places);
    const { rows, ranks } = decideGain(c, now, directions);
    const grows = rows.some(({ expanded }) => expanded);
    return {
      decisions: rows,
      memories: now.memories,
      ranks,
      ...(grows ? { install: (room) => columns(now, directions, ranks, room) } : {}),
    };
  };
}
