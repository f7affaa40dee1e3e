/**
 * The compiled programs of a run: the training step, the same step with the expansion test in its backward pass, and the
 * validation loss. State is padded to one capacity per network, so that growing a rank changes values, not shapes.
 */
import {
  add,
  type Backend,
  type Compiled,
  compile,
  concat,
  type HostArray,
  leaves,
  mapTree,
  mul,
  read,
  reshape,
  sub,
  sum,
  type Tensor,
  tensor,
  unflatten,
} from '../../core/index.ts';
import type { Measure, RankSums } from '../../selora/fisher.ts';
import { type AdamOptions, adamUpdate, clipFactor, globalNorm } from '../optimise/optimizer.ts';
import {
  columnAt,
  combine,
  gradients,
  type LossOptions,
  measured,
  sampleLosses,
  type TestedTree,
  testedGradients,
  withoutCandidates,
} from './gradients.ts';
import { moduleOf } from './modules.ts';
import {
  type Batch,
  type Candidates,
  type FisherSums,
  type Frozen,
  type Hyper,
  mapModules,
  type Pairs,
  type PerNetwork,
  type Slot,
  type State,
} from './state.ts';

export * from './state.ts';

export interface StepOptions extends LossOptions {
  readonly backend: Backend;
  readonly adam: AdamOptions;
  /** limit of the global gradient norm, 0 for none */
  readonly clip: number;
  /** what an expansion test measures; eq. 3 where nothing is said */
  readonly measure?: Measure;
  /** a module that grows begins its moments and ages anew (the published code), instead of keeping them */
  readonly restart?: boolean;
}

/** Adam on every module; a frozen slot row (the candidate's) gets no update. */
function update(o: StepOptions, s: State, g: Pairs, hyper: Hyper): { readonly state: State; readonly norm: Tensor } {
  const norm = globalNorm(leaves<Tensor>(g));
  const factor = o.clip > 0 ? clipFactor(norm, o.clip) : 1;
  const state = mapModules((slot: Slot, path, network): Slot => {
    const { A: gA, B: gB } = g[network][path]!;
    const lr = hyper[network];
    const a = adamUpdate(
      slot.A,
      mul(gA, factor),
      { m: slot.mA, v: slot.vA },
      reshape(slot.age, [1, slot.age.shape[0]!]),
      lr,
      o.adam,
    );
    const b = adamUpdate(
      slot.B,
      mul(gB, factor),
      { m: slot.mB, v: slot.vB },
      reshape(slot.age, [slot.age.shape[0]!, 1]),
      lr,
      o.adam,
    );
    return { A: a.p, mA: a.m, vA: a.v, B: b.p, mB: b.m, vB: b.v, age: add(slot.age, 1) };
  }, s);
  return { state, norm };
}

/** An accepted candidate: K in its free column, the new rank at age 0 (its moments are zero already). */
function installed(o: StepOptions, slot: Slot, { K, slot: at }: { readonly K: Tensor; readonly slot: Tensor }): Slot {
  const A = add(slot.A, columnAt(K, at));
  const row = reshape(at, slot.age.shape);
  if (!o.restart) return { ...slot, A, age: mul(slot.age, sub(1, row)) };
  // 1 for a module that stays as it is, 0 for one that grows
  const stays = sub(1, sum(row));
  const kept = mapTree((x: Tensor) => mul(x, stays), { mA: slot.mA, vA: slot.vA, mB: slot.mB, vB: slot.vB });
  return { A, B: slot.B, ...kept, age: mul(slot.age, stays) };
}

/** Sums of a test on the host. */
export type HostSums = PerNetwork<{ readonly [path: string]: RankSums<HostArray> }>;
type Loss = { readonly loss: Tensor };
type Update = { readonly state: State; readonly loss: Tensor; readonly norm: Tensor };

export interface Steps {
  /** one update from one batch */
  readonly plain: Compiled<[s: State, base: Frozen, batch: Batch, hyper: Hyper], Update>;
  /** one update from one batch, and the Fisher sums of the same backward pass */
  readonly tested: Compiled<
    [s: State, base: Frozen, batch: Batch, hyper: Hyper, c: Candidates],
    Update & { readonly sums: FisherSums }
  >;
  /** loss and gradients of one micro-batch */
  readonly part: Compiled<[s: State, base: Frozen, batch: Batch], Loss & { readonly g: Pairs }>;
  /** the same with candidates in place, and what the measure needs */
  readonly testedPart: Compiled<[s: State, base: Frozen, batch: Batch, c: Candidates], TestedTree>;
  /**
   * One update from several micro-batches: equals the update from their union. `extra` micro-batches take part in the
   * measure of a test, not in the update.
   */
  readonly accumulated: (
    s: State,
    base: Frozen,
    batches: readonly Batch[],
    hyper: Hyper,
    c?: Candidates,
    extra?: readonly Batch[],
  ) => Update & { readonly sums?: FisherSums };
  /** the sums of a test alone, without an update */
  readonly scores: (s: State, base: Frozen, batches: readonly Batch[], c: Candidates) => FisherSums;
  /** the sums on the host, in one transfer */
  readonly readSums: (sums: FisherSums) => Promise<HostSums>;
  /** puts accepted candidates into A: `slot` is the one-hot row of an accepted module, zeros for the others */
  readonly install: (s: State, c: Candidates) => State;
  /** losses [b] of a batch, each times its weight */
  readonly losses: Compiled<[a: Pairs, base: Frozen, batch: Batch], Tensor>;
  /** gives back the programs of shapes that are over */
  readonly trim: () => void;
}

export function createSteps(o: StepOptions): Steps {
  const { backend } = o;
  const measure = o.measure ?? 'fisher';
  const plain = compile(
    (s: State, base: Frozen, batch: Batch, hyper: Hyper) => {
      const { loss, g } = gradients(o, s, base, batch);
      return { ...update(o, s, g, hyper), loss };
    },
    { backend, donate: [0], name: 'training step', moduleOf },
  );
  const tested = compile(
    (s: State, base: Frozen, batch: Batch, hyper: Hyper, c: Candidates) => {
      const t = testedGradients(o, measure, s, base, batch, c);
      return { ...update(o, s, withoutCandidates(t.g, c), hyper), loss: t.loss, sums: measured(measure, t) };
    },
    { backend, donate: [0], name: 'training step with test', moduleOf },
  );
  const part = compile((s: State, base: Frozen, batch: Batch) => gradients(o, s, base, batch), {
    backend,
    name: 'micro-batch',
  });
  const testedPart = compile(
    (s: State, base: Frozen, batch: Batch, c: Candidates) => testedGradients(o, measure, s, base, batch, c),
    { backend, name: 'micro-batch with test' },
  );
  const average = compile((x: TestedTree, y: TestedTree, share: Tensor) => combine(x, y, share), {
    backend,
    donate: [0],
    name: 'accumulate',
  });
  const apply = compile((s: State, g: Pairs, hyper: Hyper) => update(o, s, g, hyper), {
    backend,
    donate: [0],
    name: 'update',
  });
  const applyTested = compile(
    (s: State, g: Pairs, hyper: Hyper, c: Candidates) => update(o, s, withoutCandidates(g, c), hyper),
    { backend, donate: [0], name: 'update beside a test' },
  );
  const sumsOf = compile((t: TestedTree) => measured(measure, t), { backend, name: 'sums of a test' });
  const sumsOfBoth = compile((x: TestedTree, y: TestedTree, share: Tensor) => measured(measure, combine(x, y, share)), {
    backend,
    name: 'sums of a test over more batches',
  });
  const pack = compile((sums: FisherSums) => concat(leaves<Tensor>(sums), 0), { backend, name: 'read sums' });
  const install = compile(
    (s: State, c: Candidates) =>
      mapModules((slot: Slot, path, network): Slot => installed(o, slot, c[network][path]!), s),
    { backend, donate: [0], name: 'install' },
  );
  const losses = compile((a: Pairs, base: Frozen, batch: Batch) => sampleLosses(o, a, base, batch), {
    backend,
    name: 'validation',
  });

  /** the mean over micro-batches */
  const over = (batches: readonly Batch[], of: (b: Batch) => TestedTree): TestedTree => {
    let total: TestedTree | undefined;
    for (const [i, b] of batches.entries()) {
      const one = of(b);
      // running mean: total·i/(i+1) + one/(i+1)
      total = total ? average(total, one, tensor(1 / (i + 1), [], one.loss.dtype)) : one;
    }
    return total!;
  };
  return {
    plain,
    tested,
    part,
    testedPart,
    accumulated(s, base, batches, hyper, c, extra = []) {
      if (!c) {
        const { loss, g } = over(batches, (b) => part(s, base, b));
        return { ...apply(s, g, hyper), loss };
      }
      const test = (b: Batch) => testedPart(s, base, b, c);
      const own = over(batches, test);
      const share = extra.length / (batches.length + extra.length);
      const sums =
        extra.length > 0
          ? sumsOfBoth(own, over(extra, test), tensor(share, [], own.loss.dtype))
          : (own.fisher ?? sumsOf(own));
      return { ...applyTested(s, own.g, hyper, c), loss: own.loss, sums };
    },
    scores: (s, base, batches, c) => sumsOf(over(batches, (b) => testedPart(s, base, b, c))),
    async readSums(sums) {
      const flat = await read(pack(sums));
      let at = 0;
      const parts = leaves<Tensor>(sums).map(({ shape: [n] }) => {
        at += n!;
        return flat.subarray(at - n!, at);
      });
      return unflatten(sums as unknown as HostSums, parts);
    },
    install,
    losses,
    trim: () => {
      for (const p of [plain, tested, part, testedPart, average, apply, applyTested, sumsOf, sumsOfBoth, pack])
        p.trim();
      for (const p of [install, losses]) p.trim();
    },
  };
}
