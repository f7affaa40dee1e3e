/**
 * The compiled programs of a run: the training step, the same step with a test in its backward pass, and the validation
 * loss. State is padded to the room its method asks for, so that growing a rank changes values, not shapes.
 */
import {
  type Backend,
  type Compiled,
  compile,
  concat,
  type HostArray,
  leaves,
  mean,
  read,
  readScalar,
  reshape,
  type Tensor,
  tensor,
  unflatten,
} from '../../core/index.ts';
import type { Params } from '../../selora/methods/method.ts';
import {
  combine,
  gradients,
  growthOf,
  type LossOptions,
  measured,
  sampleLosses,
  type Tested,
  testedGradients,
} from './gradients.ts';
import { moduleOfLabels } from './modules.ts';
import {
  type Batch,
  type Frozen,
  type Hyper,
  mapModules,
  type PerModule,
  paramsOf,
  type Slot,
  type State,
} from './state.ts';
import { type UpdateOptions, updater } from './update.ts';

export * from './state.ts';

export interface StepOptions<P extends Params = Params, X = unknown, S = unknown, H = unknown>
  extends LossOptions<P, X, S, H>,
    UpdateOptions<P, X, S, H> {
  readonly backend: Backend;
  /** every program checks every value it makes, and the state before a step is kept; see core's `CompileOptions` */
  readonly check?: 'finite';
}

type Update<P> = { readonly state: State<P>; readonly loss: Tensor; readonly norm: Tensor };
/** Means over micro-batches that only the measure of a test sees, and their share of all. */
export type Extra<P> = { readonly mean: Tested<P>; readonly share: number };

export interface Steps<P extends Params = Params, X = unknown, S = unknown, H = unknown> {
  /** one update from one batch */
  readonly plain: Compiled<[s: State<P>, base: Frozen, batch: Batch, hyper: Hyper], Update<P>>;
  /** one update from one batch, and the scores of the same backward pass */
  readonly tested: Compiled<
    [s: State<P>, base: Frozen, batch: Batch, hyper: Hyper, trials: PerModule<X>],
    Update<P> & { readonly sums: PerModule<S> }
  >;
  /** loss and gradients of one micro-batch */
  readonly part: Compiled<
    [s: State<P>, base: Frozen, batch: Batch],
    { readonly loss: Tensor; readonly g: PerModule<P> }
  >;
  /** the same with candidates in place, and what the measure needs */
  readonly testedPart: Compiled<[s: State<P>, base: Frozen, batch: Batch, trials: PerModule<X>], Tested<P>>;
  /**
   * One update from several micro-batches: equals the update from their union. `extra` micro-batches take part in the
   * measure of a test, not in the update.
   */
  readonly accumulated: (
    s: State<P>,
    base: Frozen,
    batches: readonly Batch[],
    hyper: Hyper,
    trials?: PerModule<X>,
    extra?: readonly Batch[],
  ) => Update<P> & { readonly sums?: PerModule<S> };
  /** the update from means over micro-batches, however they came about; `accumulated` is this after its own passes */
  readonly updated: (
    s: State<P>,
    own: Tested<P>,
    hyper: Hyper,
    trials?: PerModule<X>,
    extra?: Extra<P>,
  ) => Update<P> & { readonly sums?: PerModule<S> };
  /** the scores of a test from means over micro-batches */
  readonly sumsOf: (s: State<P>, mean: Tested<P>) => PerModule<S>;
  /** the scores of a test alone, without an update */
  readonly scores: (s: State<P>, base: Frozen, batches: readonly Batch[], trials: PerModule<X>) => PerModule<S>;
  /** the scores of one micro-batch */
  readonly scored: Compiled<[s: State<P>, base: Frozen, batch: Batch, trials: PerModule<X>], PerModule<S>>;
  /** the scores of each batch by itself, on the host */
  readonly each: (
    s: State<P>,
    base: Frozen,
    batches: readonly Batch[],
    trials: PerModule<X>,
  ) => Promise<readonly PerModule<H>[]>;
  /** the mean loss of one micro-batch with candidates in place */
  readonly trialPart: Compiled<[p: PerModule<P>, base: Frozen, batch: Batch, trials: PerModule<X>], Tensor>;
  /** the mean loss over batches with candidates in place */
  readonly trialLoss: (s: State<P>, base: Frozen, batches: readonly Batch[], trials: PerModule<X>) => Promise<number>;
  /** scores that need no gradient, of the modules as they are */
  readonly look: (s: State<P>) => PerModule<S>;
  /** the scores on the host, in one transfer */
  readonly readSums: (sums: PerModule<S>) => Promise<PerModule<H>>;
  /** the same as numbers in a row, and the scores they are */
  readonly rowOf: (sums: PerModule<S>) => Promise<HostArray>;
  readonly fromRow: (like: PerModule<S>, row: HostArray) => PerModule<H>;
  /** writes what a test decided into the state */
  readonly install: (s: State<P>, trials: PerModule<X>) => State<P>;
  /** losses [b] of a batch, each times its weight */
  readonly losses: Compiled<[params: PerModule<P>, base: Frozen, batch: Batch], Tensor>;
  /** gives back the programs of shapes that are over */
  readonly trim: () => void;
}

export function createSteps<P extends Params, X, S, H>(o: StepOptions<P, X, S, H>): Steps<P, X, S, H> {
  const reads = { backend: o.backend, moduleOf: moduleOfLabels(o), ...(o.check ? { check: o.check } : {}) };
  // a step that checks leaves its state, so that it can be asked again sample by sample (train/trainer/non-finite.ts)
  const changes = { ...reads, donate: o.check ? [] : [0] };
  const update = updater(o);
  const settle = (g: PerModule<P>, trials: PerModule<X>): PerModule<P> =>
    mapModules((x: P, path, n) => growthOf(o).settle(x, trials[n][path]!, o.settings), g);
  const plain = compile(
    (s: State<P>, base: Frozen, batch: Batch, hyper: Hyper) => {
      const { loss, g } = gradients(o, paramsOf(s), base, batch);
      return { ...update(s, g, hyper), loss };
    },
    { ...changes, name: 'training step' },
  );
  const tested = compile(
    (s: State<P>, base: Frozen, batch: Batch, hyper: Hyper, trials: PerModule<X>) => {
      const t = testedGradients(o, s, base, batch, trials);
      return { ...update(s, settle(t.g, trials), hyper), loss: t.loss, sums: measured(o, t, paramsOf(s)) };
    },
    { ...changes, name: 'training step with test' },
  );
  const part = compile((s: State<P>, base: Frozen, batch: Batch) => gradients(o, paramsOf(s), base, batch), {
    ...reads,
    name: 'micro-batch',
  });
  const testedPart = compile(
    (s: State<P>, base: Frozen, batch: Batch, trials: PerModule<X>) => testedGradients(o, s, base, batch, trials),
    { ...reads, name: 'micro-batch with test' },
  );
  const scored = compile(
    (s: State<P>, base: Frozen, batch: Batch, trials: PerModule<X>) =>
      measured(o, testedGradients(o, s, base, batch, trials), paramsOf(s)),
    { ...reads, name: 'scores of a micro-batch' },
  );
  const average = compile((x: Tested<P>, y: Tested<P>, share: Tensor) => combine(x, y, share), {
    ...changes,
    name: 'accumulate',
  });
  const apply = compile((s: State<P>, g: PerModule<P>, hyper: Hyper) => update(s, g, hyper), {
    ...changes,
    name: 'update',
  });
  const applyTested = compile(
    (s: State<P>, g: PerModule<P>, hyper: Hyper, trials: PerModule<X>) => update(s, settle(g, trials), hyper),
    { ...changes, name: 'update beside a test' },
  );
  const sumsOf = compile((p: PerModule<P>, t: Tested<P>) => measured(o, t, p), { ...reads, name: 'sums of a test' });
  const sumsOfBoth = compile(
    (p: PerModule<P>, x: Tested<P>, y: Tested<P>, share: Tensor) => measured(o, combine(x, y, share), p),
    { ...reads, name: 'sums of a test over more batches' },
  );
  const all = (sums: PerModule<S>): Tensor[] => leaves(sums as never);
  const sizeOf = ({ shape }: Tensor): number => shape.reduce((n, side) => n * side, 1);
  const pack = compile(
    (sums: PerModule<S>) =>
      concat(
        all(sums).map((t) => reshape(t, [sizeOf(t)])),
        0,
      ),
    {
      ...reads,
      name: 'read sums',
    },
  );
  const install = compile(
    (s: State<P>, trials: PerModule<X>) =>
      mapModules((slot: Slot<P>, path, n) => growthOf(o).install(slot, trials[n][path]!, o.settings), s),
    { ...changes, name: 'install' },
  );
  const losses = compile(
    (params: PerModule<P>, base: Frozen, batch: Batch) =>
      sampleLosses(
        o,
        mapModules((p: P) => o.method.whole?.(p, o.settings) ?? p, params),
        base,
        batch,
      ),
    { ...reads, name: 'validation' },
  );
  const trialLosses = compile(
    (p: PerModule<P>, base: Frozen, batch: Batch, trials: PerModule<X>) => {
      const placed = mapModules((q: P, path, n) => growthOf(o).place(q, trials[n][path]!, o.settings), p);
      return mean(sampleLosses(o, placed, base, batch));
    },
    { ...reads, name: 'loss of a test' },
  );
  const look = compile(
    (p: PerModule<P>) => {
      const of = growthOf(o).look;
      if (!of) throw new TypeError(`${o.method.name}: nothing to look at`);
      return mapModules((x: P) => of(x, o.settings), p);
    },
    { ...reads, name: 'look' },
  );

  const rowOf = (sums: PerModule<S>): Promise<HostArray> => read(pack(sums));
  const fromRow = (like: PerModule<S>, row: HostArray): PerModule<H> => {
    let at = 0;
    const parts = all(like).map((t) => {
      at += sizeOf(t);
      return row.subarray(at - sizeOf(t), at);
    });
    return unflatten(like, parts) as unknown as PerModule<H>;
  };
  const readSums = async (sums: PerModule<S>): Promise<PerModule<H>> => fromRow(sums, await rowOf(sums));
  /** the mean over micro-batches */
  const over = (batches: readonly Batch[], of: (b: Batch) => Tested<P>): Tested<P> => {
    let total: Tested<P> | undefined;
    for (const [i, b] of batches.entries()) {
      const one = of(b);
      // running mean: total·i/(i+1) + one/(i+1)
      total = total ? average(total, one, tensor(1 / (i + 1), [], one.loss.dtype)) : one;
    }
    return total!;
  };
  const updated: Steps<P, X, S, H>['updated'] = (s, own, hyper, trials, extra) => {
    if (!trials) return { ...apply(s, own.g, hyper), loss: own.loss };
    const p = paramsOf(s);
    const sums = extra ? sumsOfBoth(p, own, extra.mean, tensor(extra.share, [], own.loss.dtype)) : sumsOf(p, own);
    return { ...applyTested(s, own.g, hyper, trials), loss: own.loss, sums };
  };
  return {
    plain,
    tested,
    part,
    testedPart,
    scored,
    trialPart: trialLosses,
    updated,
    sumsOf: (s, mean) => sumsOf(paramsOf(s), mean),
    accumulated(s, base, batches, hyper, trials, extra = []) {
      const one = (b: Batch) => (trials ? testedPart(s, base, b, trials) : part(s, base, b));
      const own = over(batches, one);
      const share = extra.length / (batches.length + extra.length);
      return updated(s, own, hyper, trials, extra.length > 0 ? { mean: over(extra, one), share } : undefined);
    },
    scores: (s, base, batches, trials) =>
      sumsOf(
        paramsOf(s),
        over(batches, (b) => testedPart(s, base, b, trials)),
      ),
    async trialLoss(s, base, batches, trials) {
      let total = 0;
      for (const b of batches) total += await readScalar(trialLosses(paramsOf(s), base, b, trials));
      return total / batches.length;
    },
    look: (s) => look(paramsOf(s)),
    async each(s, base, batches, trials) {
      const out: PerModule<H>[] = [];
      for (const b of batches) out.push(await readSums(scored(s, base, b, trials)));
      return out;
    },
    readSums,
    rowOf,
    fromRow,
    install,
    losses,
    trim: () => {
      for (const p of [plain, tested, part, testedPart, average, apply, applyTested, sumsOf, sumsOfBoth, pack])
        p.trim();
      for (const p of [scored, install, losses, trialLosses, look]) p.trim();
    },
  };
}
