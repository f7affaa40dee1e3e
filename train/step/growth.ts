/** Steps with a test: the method runs its passes and decides; what it decided is installed, with room for the next test. */
import { z } from 'zod';
import type { Backend, Tensor } from '../../core/index.ts';
import { hostKey } from '../../selora/adapter.ts';
import type { Decided, Method, Params, Passes } from '../../selora/methods/method.ts';
import { modulesOf } from '../../selora/networks.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { growthOf } from './gradients.ts';
import { type Chosen, capacityFor, padState } from './ranks.ts';
import {
  type Batch,
  type Frozen,
  type Hyper,
  mapModules,
  type PerModule,
  type Ranks,
  type State,
  type Steps,
} from './step.ts';

/** module → what the method remembers of its tests */
export type Memories = { readonly [module: string]: unknown };
/** what a method remembers, as a checkpoint holds it */
export const memoriesSchema = ({ growth }: Pick<Method, 'growth'>): z.ZodType<Memories> =>
  z.record(z.string(), growth?.memory ?? z.never());

export type Standing<P = Params> = { readonly state: State<P>; readonly ranks: Ranks; readonly memories: Memories };
export type Grown<P = Params> = Standing<P> & {
  readonly decisions: readonly Decided[];
  readonly padded: boolean;
  /** `Outcome.carried` */
  readonly carried?: readonly number[] | undefined;
};
/** A step that tests, before anything was decided. */
export type TestedStep<P = Params> = {
  readonly state: State<P>;
  readonly loss: Tensor;
  readonly norm: Tensor;
  /** decides and grows; reads the scores */
  readonly decide: () => Promise<Grown<P>>;
};

/** Places for ranks that the modules of a state have. */
const roomOf = <P>(state: State<P>): Ranks => mapModules(({ age }) => age.shape[0]!, state);

/** The passes over several micro-batches; those of several processes take time to come together. */
export type Spread<P extends Params, X, S, H> = {
  readonly [name in 'accumulated' | 'scores' | 'each' | 'trialLoss']: (
    ...args: Parameters<Steps<P, X, S, H>[name]>
  ) => ReturnType<Steps<P, X, S, H>[name]> | Promise<Awaited<ReturnType<Steps<P, X, S, H>[name]>>>;
};

export type GrowthParts<P extends Params, X, S, H> = Chosen<P, X, S, H> & {
  readonly seed: number;
  readonly places: ModelPlaces;
  readonly programs: Omit<Steps<P, X, S, H>, keyof Spread<P, X, S, H>> & Spread<P, X, S, H>;
  readonly frozen: Frozen;
  readonly backend: Backend;
};

/**
 * One update from the micro-batches of a step and the test of that step (1-based). `extra` micro-batches take part in the
 * scores only.
 */
export async function testedStep<P extends Params, X, S, H>(
  parts: GrowthParts<P, X, S, H>,
  before: Standing<P>,
  batches: readonly Batch[],
  extra: readonly Batch[],
  hyper: Hyper,
  step: number,
  steps: number,
): Promise<TestedStep<P>> {
  const { method, settings, programs, frozen, backend } = parts;
  let { state } = before;
  type Done = { readonly loss: Tensor; readonly norm: Tensor; readonly sums?: PerModule<S> };
  let updating: Promise<Done> | undefined;
  // each pass begins when the one asked for before it is through: it sees the parameters that one left
  let last: Promise<unknown> = Promise.resolve();
  const inOrder = <T>(pass: () => T | Promise<T>): Promise<T> => {
    const next = last.then(pass);
    // whoever asked is told; the passes after it would fail by it too
    next.catch(() => undefined);
    last = next;
    return next;
  };
  const update = (trials?: PerModule<X>): Promise<Done> => {
    updating = inOrder(async () => {
      const r =
        batches.length > 1 || (trials && extra.length > 0)
          ? await programs.accumulated(state, frozen, batches, hyper, trials, extra)
          : trials
            ? programs.tested(state, frozen, batches[0]!, hyper, trials)
            : programs.plain(state, frozen, batches[0]!, hyper);
      state = r.state;
      return r;
    });
    return updating;
  };
  const all = [...batches, ...extra];
  const passes: Passes<X, H> = {
    batches: all.length,
    update(trials) {
      const made = update(trials);
      return async () => programs.readSums((await made).sums!);
    },
    measure(trials, range = [0, batches.length]) {
      const sums = inOrder(() => programs.scores(state, frozen, all.slice(...range), trials));
      return async () => programs.readSums(await sums);
    },
    each: (trials, range = [0, batches.length]) =>
      inOrder(() => programs.each(state, frozen, all.slice(...range), trials)),
    loss: (trials, range = [0, batches.length]) =>
      inOrder(() => programs.trialLoss(state, frozen, all.slice(...range), trials)),
    look() {
      const sums = inOrder(() => programs.look(state));
      return async () => programs.readSums(await sums);
    },
  };
  const room = roomOf(before.state);
  const now = {
    step,
    steps,
    key: hostKey(parts.seed),
    places: parts.places,
    ranks: before.ranks,
    room,
    memories: before.memories,
  };
  const growth = growthOf(parts);
  const outcome = growth.test(passes, now, settings);
  const decide = async (): Promise<Grown<P>> => {
    const { decisions, memories, ranks, carried, install } = await outcome();
    if (!install) return { state, ranks, memories, decisions, carried, padded: false };
    // a state never gives any back
    const after = mapModules((places, path, n) => Math.max(places, room[n][path]!), capacityFor(ranks, parts));
    const padded = modulesOf(after).some(({ n, path }) => after[n][path]! > room[n][path]!);
    const roomy = padded ? padState(parts, state, after, backend) : state;
    return { state: programs.install(roomy, install(after)), ranks, memories, decisions, carried, padded };
  };
  if (!growth.before?.(settings)) {
    if (!updating) throw new Error(`${method.name}: a test that makes no update`);
    const { loss, norm } = await updating;
    await last;
    return { state, loss, norm, decide };
  }
  const grown = await decide();
  state = grown.state;
  if (grown.padded) programs.trim();
  const { loss, norm } = await update();
  return { state, loss, norm, decide: async () => ({ ...grown, state, padded: false }) };
}
