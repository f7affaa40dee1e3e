/** The test of `--criterion gain`: a sketch of every module's gradient, its directions on two halves of the data, and who gets them. */
import type { Matrix } from 'ml-matrix';
import { type HostArray, tensor } from '../../core/index.ts';
import { foldKey, normalNumbers } from '../adapter.ts';
import { costOf, inputsOf, parametersOf } from '../methods/low-rank.ts';
import type { Decided, Now, Outcome, Passes, Place, Places, Ranks } from '../methods/method.ts';
import { orderOf } from '../methods/reorder.ts';
import {
  mapModules,
  mapNetworks,
  moduleName,
  modulesOf as modulesIn,
  type Network,
  networks,
  type PerModule,
  type PerNetwork,
} from '../networks.ts';
import type { Trial } from '../trial.ts';
import { allot, type Offer } from './allot.ts';
import { broughtBy } from './brought.ts';
import { carriedBy, meanRows, mostOf, type Said, saidBy } from './carried.ts';
import { type Direction, directionsOf, rangeOf } from './directions.ts';
import { type Asked, type Probe, type Sketched, widthOf } from './probe.ts';
import { type Exchange, exchange, missing, sensed, without } from './prune.ts';
import { budgetOf, type Gaining, shareAt } from './schedule.ts';

/** A row of the log: what the module was given, and from which numbers. */
export type Gained = Decided & {
  /** ranks it was given */
  readonly added: number;
  /** parameters of one rank */
  readonly cost: number;
  /** what the next rank would have lowered the loss by, per unit of learning rate; of a module that grew, the first given */
  readonly gain: number;
  /** length of the strongest direction of its gradient */
  readonly sigma: number;
  /** how much of the other half's gradient that direction catches, as a share of the most that one direction can */
  readonly caught: number;
  /** what the first rank given brought by one step alone, in the gain's unit, where it was measured (`gainCheck`) */
  readonly brought?: number;
  /** of a module that was given ranks: the samples of the test that asked most for them, [sample, part of their gain] */
  readonly carried?: readonly (readonly [number, number])[];
  /** ranks it lost, */
  readonly lost?: number;
  /** and by how much the loss was expected to miss them */
  readonly missed?: number;
};
/** A module's candidates, and the ranks that leave it: where those that stay go, `order`[room, room]. */
export type Moved = Trial & { readonly order?: ReturnType<typeof tensor> };
type At = Pick<Now<never>, 'step' | 'steps' | 'places' | 'ranks'>;

const modulesOf = (places: PerNetwork<Places>): PerModule<Place> =>
  mapNetworks((all) => Object.fromEntries(all), places);

/** Gaussian rows Ω[q, d_out] of seed, module and step. */
function sketching(now: Pick<Now<never>, 'key' | 'step' | 'places'>, probe: number): PerModule<Probe> {
  return mapModules((place: Place, path, n) => {
    const [q, dOut] = [widthOf(place, probe), place[0]];
    const R = normalNumbers(foldKey(now.key, 'gain', n, path, now.step), q * dOut);
    return { R: tensor(R, [q, dOut]) };
  }, modulesOf(now.places));
}

/** the learning rate of a network */
const rateOf = (c: Gaining, n: Network): number => (n === 'text' ? c.textLr : null) ?? c.lr ?? 1e-3;

/** What every module could have, in the order of the networks. */
function offersOf(c: Gaining, now: At, directions: PerModule<readonly Direction[]>): readonly Offer[] {
  // a step is as long as the network's rate
  const rate = { unet: 1, text: c.textLr != null && c.lr ? c.textLr / c.lr : 1 };
  return networks.flatMap((n) =>
    [...now.places[n]].map(([path, place]) => ({
      module: moduleName(n, path),
      gains: directions[n][path]!.map(({ gain }) => gain * rate[n]),
      cost: costOf(place),
      owed: c.gainLeast - now.ranks[n][path]!,
    })),
  );
}
/** parameters that may be given out at a step beside those in use */
const freeAt = (c: Gaining, now: At): number =>
  Math.floor(budgetOf(c, now.places) * shareAt(c, now.step, now.steps)) - parametersOf(now.ranks, now.places);

/** Who gets what of the parameters that are free; none is lost. */
export const dealt = (c: Gaining, now: At, offers: readonly Offer[]): Exchange => ({
  given: allot(offers, freeAt(c, now)),
  lost: new Map(),
});

/** The log of a decision, and the ranks after it. */
export function rowsOf(
  now: At,
  directions: PerModule<readonly Direction[]>,
  offers: readonly Offer[],
  { given, lost }: Exchange,
): { readonly rows: Gained[]; readonly ranks: Ranks } {
  const ranks = mapModules((r: number, path, n) => {
    const name = moduleName(n, path);
    return r + given.get(name)! - (lost.get(name)?.length ?? 0);
  }, now.ranks);
  const found = networks.flatMap((n) => Object.entries(directions[n]).map(([path, d]) => ({ n, path, first: d[0] })));
  const rows = found.map(({ n, path, first }, i): Gained => {
    const { module, gains, cost } = offers[i]!;
    const added = given.get(module)!;
    const gone = lost.get(module)?.length ?? 0;
    return {
      module,
      expanded: added > 0,
      rankAfter: ranks[n][path]!,
      added,
      cost,
      gain: gains[0] ?? 0,
      sigma: first?.sigma ?? 0,
      caught: first?.caught ?? 0,
      ...(gone > 0 ? { lost: gone } : {}),
    };
  });
  return { rows, ranks };
}

/** Columns √2·u in the free ranks of every module that grows, for the others a row of zeros; where ranks leave, their order. */
function columns(
  now: Pick<Now<never>, 'places' | 'ranks'>,
  directions: PerModule<readonly Direction[]>,
  { given, lost }: Exchange,
  room: Ranks,
  prunes: boolean,
): PerModule<Moved> {
  return mapModules((place: Place, path, n) => {
    const [dIn, before, name] = [inputsOf(place), now.ranks[n][path]!, moduleName(n, path)];
    const gone = lost.get(name) ?? [];
    const taken = directions[n][path]!.slice(0, given.get(name)!);
    // one form for all, so that one program installs them
    const k = room[n][path]!;
    const [K, slot] = [new Float32Array(dIn * k), new Float32Array(k * k)];
    for (const [j, { u }] of taken.entries()) {
      for (let i = 0; i < dIn; i++) K[i * k + j] = Math.SQRT2 * u[i]!;
      slot[j * k + before - gone.length + j] = 1;
    }
    const moved = { K: tensor(K, [dIn, k]), slot: tensor(slot, [k, k]) };
    return prunes ? { ...moved, order: orderOf(before, gone, k) } : moved;
  }, modulesOf(now.places));
}

type Tests = Passes<Probe, Sketched<HostArray> | Asked<HostArray>>;
/** An orthonormal basis Q of every module's sketch over some batches, free of the columns it has. */
async function ranges(passes: Tests, now: Now<never>, c: Gaining, half: number): Promise<PerModule<Matrix>> {
  const each = (await passes.each(sketching(now, c.probe), [0, half])) as readonly PerModule<Sketched<HostArray>>[];
  return mapModules((place: Place, path, n) => {
    const [dIn, rank, q] = [inputsOf(place), now.ranks[n][path]!, widthOf(place, c.probe)];
    const of = each.map((sketch) => sketch[n][path]!);
    const [K, { A }] = [new Float64Array(dIn * q), of[0]!];
    for (const sketch of of) for (let i = 0; i < K.length; i++) K[i]! += sketch.K[i]! / of.length;
    const room = A.length / dIn;
    const own = Float64Array.from({ length: dIn * rank }, (_, i) => A[Math.floor(i / rank) * room + (i % rank)]!);
    return rangeOf({ data: K, shape: [dIn, q] }, { data: own, shape: [dIn, rank] });
  }, modulesOf(now.places));
}
/** What the samples of every batch say beside Q, and the directions they make on two halves. */
async function look(passes: Tests, now: Now<never>, c: Gaining, half: number) {
  const [places, found] = [modulesOf(now.places), await ranges(passes, now, c, half)];
  const columns = mapModules((place: Place, path, n): Probe => {
    const [dIn, q, Q] = [inputsOf(place), widthOf(place, c.probe), found[n][path]!];
    const K = new Float32Array(dIn * q);
    for (let i = 0; i < dIn; i++) for (let j = 0; j < Q.columns; j++) K[i * q + j] = Q.get(i, j);
    return { K: tensor(K, [dIn, q]) };
  }, places);
  const answers = (await passes.each(columns, [0, passes.batches])) as readonly PerModule<Asked<HostArray>>[];
  const said = saidBy(answers, places, c.probe);
  const directions = mapModules(
    (of: Said, path, n) => directionsOf(found[n][path]!, meanRows(of, 0, half), meanRows(of, half, passes.batches)),
    said,
  );
  return { said, directions };
}

/**
 * The exchange of a test that prunes, and what each module that loses is expected to be missed by. What an offer brings until
 * the next test is its gain times learning rate and steps. It is not made where the loss, measured without all that would
 * leave, rises by more than what comes for them is expected to bring.
 */
async function moving(
  passes: Tests,
  now: At,
  c: Gaining,
  offers: readonly Offer[],
  said: PerModule<Said>,
): Promise<Exchange & { readonly missed: ReadonlyMap<string, number> }> {
  const plain = dealt(c, now, offers);
  const places = modulesOf(now.places);
  const ranks = networks.flatMap((n) =>
    [...now.places[n]].flatMap(([path, place]) =>
      Array.from({ length: now.ranks[n][path]! }, (_, rank) => ({
        module: moduleName(n, path),
        rank,
        cost: costOf(place),
        ...sensed(said[n][path]!.gates[rank]!),
      })),
    ),
  );
  const nothing = { ...plain, missed: new Map<string, number>() };
  if (ranks.length === 0) return nothing;
  const all = [0, passes.batches] as const;
  const lossWithout = (lost: Exchange['lost']) =>
    passes.loss(
      without(places, said, (path, n) => lost.get(moduleName(n, path)) ?? [], c.probe),
      all,
    );
  const whole = await lossWithout(new Map());
  const rise = async (lost: Exchange['lost']) => (await lossWithout(lost)) - whole;
  const most = c.prune * budgetOf(c, now.places);
  const held = await missing(ranks, most, c.probe, rise);
  const horizon = rateOf(c, 'unet') * c.testEvery;
  const worth = offers.map((o) => ({ ...o, gains: o.gains.map((g) => g * horizon) }));
  const spent = offers.reduce((n, o) => n + plain.given.get(o.module)! * o.cost, 0);
  const found = exchange(worth, held, plain.given, { left: freeAt(c, now) - spent, most, probe: c.probe });
  if (found.lost.size === 0) return nothing;
  const brings = worth.reduce(
    (sum, o) => sum + o.gains.slice(plain.given.get(o.module), found.given.get(o.module)).reduce((a, b) => a + b, 0),
    0,
  );
  if ((await rise(found.lost)) >= brings) return nothing;
  const missed = new Map<string, number>();
  for (const rank of held)
    if (found.lost.get(rank.module)?.includes(rank.rank))
      missed.set(rank.module, (missed.get(rank.module) ?? 0) + rank.missed);
  return { ...found, missed };
}

/**
 * A sketch, what single samples say beside its range, and a decision. Q is sketched on the first half of the batches: the
 * second half has no part in it, so that what either half says of the other's directions is unbiased.
 */
export function gainTest(passes: Tests, now: Now<never>, c: Gaining): () => Promise<Outcome<Moved, never, Gained>> {
  const half = Math.ceil(passes.batches / 2);
  return async () => {
    const { said, directions } = await look(passes, now, c, half);
    const offers = offersOf(c, now, directions);
    const decided =
      c.prune > 0
        ? await moving(passes, now, c, offers, said)
        : { ...dealt(c, now, offers), missed: new Map<string, number>() };
    const { rows, ranks } = rowsOf(now, directions, offers, decided);
    const all = modulesIn(directions);
    const parts: Float64Array[] = [];
    const brought = await broughtBy(
      passes,
      all.filter((_, i) => rows[i]!.added > 0),
      directions,
      { places: modulesOf(now.places), half, probe: c.probe },
      { unet: rateOf(c, 'unet'), text: rateOf(c, 'text') },
      c.gainCheck,
    );
    const decisions = rows.map((row, i): Gained => {
      const [missed, found] = [decided.missed.get(row.module), brought.get(row.module)];
      const told = {
        ...row,
        ...(missed === undefined ? {} : { missed }),
        ...(found === undefined ? {} : { brought: found }),
      };
      if (row.added === 0) return told;
      const { n, path } = all[i]!;
      const carried = carriedBy(said[n][path]!, directions[n][path]!, row.added, half);
      parts.push(carried);
      return { ...told, carried: mostOf(carried, 3) };
    });
    const changes = rows.some(({ added, lost }) => added > 0 || lost !== undefined);
    return {
      decisions,
      memories: now.memories,
      ranks,
      ...(changes
        ? {
            carried: Array.from(parts[0] ?? [], (_part, i) => parts.reduce((sum, of) => sum + of[i]!, 0)),
            install: (room: Ranks) => columns(now, directions, decided, room, c.prune > 0),
          }
        : {}),
    };
  };
}
