/** How a run may grow: measures and criteria against plain loops over samples, smoothing, more batches. */
import { beforeAll, describe, expect, test, vi } from 'vitest';
import {
  cpuBackend,
  evaluate,
  grad,
  leaves,
  mapTree,
  mean,
  mul,
  read,
  readScalar,
  sub,
  type Tensor,
} from '../../../core/index.ts';
import { textEncoder } from '../../../models/clip/text-encoder.ts';
import { unet } from '../../../models/unet/index.ts';
import type { Adapter, Adapters } from '../../../selora/adapter.ts';
import { attach } from '../../../selora/attach.ts';
import { fiRatio } from '../../../selora/criteria/fi-ratio.ts';
import { fiSnr } from '../../../selora/criteria/fi-snr.ts';
import { lossDecrease } from '../../../selora/criteria/loss-decrease.ts';
import { expandAdapter } from '../../../selora/expand.ts';
import { type Decision, ratioOf, scoresOf } from '../../../selora/fisher.ts';
import { measureOf } from '../../../selora/methods/selora.ts';
import { type Memory, smooth } from '../../../selora/smooth.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { type Grown, testedStep } from '../../../train/step/growth.ts';
import {
  type Batch,
  type Frozen,
  mapModules,
  networks,
  type PerNetwork,
  type Ranks,
  type State,
} from '../../../train/step/step.ts';
import { longRows } from '../../support/long.ts';
import {
  adapters,
  batch,
  candidatesFor,
  chosen,
  configs,
  frozen,
  linears,
  part,
  rate,
  stateOf,
  steps,
} from '../../support/step-fixture.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const cpu = cpuBackend();
const SCALE = 0.8;
const base = { f32: frozen('f32'), f64: frozen('f64') };
/** mean weighted squared error of a batch, written out for adapters without padding */
const loss = (a: PerNetwork<Adapters>, b: Batch, from: Frozen): Tensor => {
  const context = textEncoder(attach(from.text, a.text, SCALE), configs.text, b.ids).lastHiddenState;
  const d = sub(unet(attach(from.unet, a.unet, SCALE), configs.unet, b.x, b.t, context), b.target);
  return mean(mul(mean(mul(d, d), [1, 2, 3]), b.weight));
};
const gradient = (a: PerNetwork<Adapters>, b: Batch, from: Frozen): PerNetwork<Adapters> =>
  evaluate(grad((x: PerNetwork<Adapters>) => loss(x, b, from))(a), cpu);
const close = (got: number, want: number, relative: number, what: string) =>
  expect(Math.abs(got - want), `${what}: ${got}, expected ${want}`).toBeLessThanOrEqual(
    relative * Math.abs(want) + 1e-300,
  );
const hostOf = async (b: Batch) =>
  new Map(await Promise.all(leaves<Tensor>(b).map(async (t) => [t, await read(t)] as const)));

/** settings under which each is measured */
const MEASURED = {
  fisher: {},
  batch: { fisher: 'batch' },
  signal: { criterion: 'fi-snr' },
  natural: { criterion: 'loss-decrease' },
} as const;
/** the rows of SeLoRA's tests */
const rowsOf = ({ decisions }: Pick<Grown, 'decisions'>) => decisions as readonly Decision[];

describe('what a test measures', () => {
  const [a, b] = [adapters(2, 'f64'), batch(3, 5, 'f64')];
  const hyper = rate(1e-2, 'f64');
  const candidates = candidatesFor(stateOf(a, 4, cpu), a, 'f64');
  /** mean and mean square over samples of every entry of one module, ranks 0, 1 and the candidate */
  type Wanted = { mean: number[]; square: number[]; rank: number[] };
  const wanted = new Map<string, { A: Wanted; B: Wanted }>();
  beforeAll(async () => {
    const expanded = mapModules((x: Adapter, path, n) => expandAdapter(x, candidates[n][path]!.K), a);
    const host = await hostOf(b);
    for (let i = 0; i < 3; i++) {
      const g = gradient(expanded, part(b, i, i + 1, host), base.f64);
      for (const n of networks)
        for (const [path, pair] of Object.entries(g[n]))
          for (const side of ['A', 'B'] as const) {
            const values = await read(pair[side]);
            const columns = pair[side].shape[1]!;
            const fresh = (): Wanted => ({ mean: [], square: [], rank: [] });
            const entry = wanted.get(`${n} ${path}`) ?? { A: fresh(), B: fresh() };
            wanted.set(`${n} ${path}`, entry);
            for (const [j, v] of Array.from(values).entries()) {
              entry[side].mean[j] = (entry[side].mean[j] ?? 0) + v / 3;
              entry[side].square[j] = (entry[side].square[j] ?? 0) + v ** 2 / 3;
              entry[side].rank[j] = side === 'A' ? j % columns : Math.floor(j / columns);
            }
          }
    }
  });
  const sumBy = (w: Wanted, rank: number, of: (mean: number, square: number) => number): number =>
    w.mean.reduce((s, m, j) => s + (w.rank[j] === rank ? of(m, w.square[j]!) : 0), 0);

  test.each(longRows(['batch', 'signal', 'natural'] as const, (x) => x === 'signal'))(
    '%s: sums by rank, one ratio per module',
    async (measure) => {
      const programs = steps(cpu, { given: MEASURED[measure] });
      const r = programs.tested(stateOf(a, 4, cpu), base.f64, b, hyper, candidates);
      const sums = await programs.readSums(r.sums);
      const of: (m: number, s: number) => number =
        measure === 'batch'
          ? (m) => m * m
          : measure === 'natural'
            ? (m, s) => (s === 0 ? 0 : (m * m) / s)
            : (_, s) => s;
      for (const n of networks)
        for (const [path, got] of Object.entries(sums[n])) {
          const w = wanted.get(`${n} ${path}`)!;
          for (const rank of [0, 1, 2]) {
            close(got.a[rank]!, sumBy(w.A, rank, of), 1e-9, `${path} a[${rank}]`);
            close(got.b[rank]!, sumBy(w.B, rank, of), 1e-9, `${path} b[${rank}]`);
          }
          const original = [0, 1].reduce((s, k) => s + sumBy(w.A, k, of) + sumBy(w.B, k, of), 0);
          // fi-snr: FI of the new row times ‖mean gᵢ‖²/mean‖gᵢ‖²
          const rho = sumBy(w.B, 2, (m) => m * m) / sumBy(w.B, 2, (_, s) => s);
          const gain = sumBy(w.B, 2, of) * (measure === 'signal' ? rho : 1);
          close(ratioOf(path, scoresOf(got.a, got.b, 2, got.gain)), 1 + gain / original, 1e-12, `${path} ratio`);
        }
    },
  );

  test.each(longRows(['fisher', 'batch', 'signal', 'natural'] as const, (x) => x === 'fisher' || x === 'natural'))(
    '%s over more batches is that over their union, and the update is that of the own ones',
    async (measure) => {
      const all = batch(6, 31, 'f64');
      const host = await hostOf(all);
      const cut = [0, 2, 4].map((from) => part(all, from, from + 2, host));
      const own = part(all, 0, 4, host);
      const programs = steps(cpu, { given: MEASURED[measure] });
      const fresh = () => stateOf(a, 4, cpu);
      const union = await programs.readSums(programs.tested(fresh(), base.f64, all, hyper, candidates).sums);
      const r = programs.accumulated(fresh(), base.f64, cut.slice(0, 2), hyper, candidates, cut.slice(2));
      const sums = await programs.readSums(r.sums!);
      const alone = await programs.readSums(programs.scores(fresh(), base.f64, cut, candidates));
      for (const n of networks)
        for (const [path, want] of Object.entries(union[n]))
          for (const side of ['a', 'b', ...(measure === 'signal' ? (['gain'] as const) : [])] as const)
            for (const [rank, v] of want[side]!.entries()) {
              close(sums[n][path]![side]![rank]!, v, 1e-8, `${path} ${side}[${rank}]`);
              close(alone[n][path]![side]![rank]!, v, 1e-8, `${path} ${side}[${rank}] alone`);
            }
      const plain = programs.plain(fresh(), base.f64, own, hyper);
      close(await readScalar(r.loss), await readScalar(plain.loss), 1e-12, 'loss');
      close(await readScalar(r.norm), await readScalar(plain.norm), 1e-10, 'norm');
    },
  );

  test('each criterion asks for its measure', () => {
    const of = (line: Record<string, unknown>) => measureOf(resolveConfig({ data: 'x', ...line }));
    expect(of({})).toBe(fiRatio.perSample);
    expect(of({ fisher: 'batch' })).toBe(fiRatio.batch);
    expect(of({ criterion: 'fi-snr' })).toBe(fiSnr.perSample);
    expect(of({ criterion: 'loss-decrease' })).toBe(lossDecrease.perSample);
  });
});

describe('smoothing', () => {
  const scores = (fiA: number, fiB: number, fiNew: number) => ({ fiA, fiB, fiNew });
  test('the first test counts as it is, later ones by β, as a weighted mean of all', () => {
    const seen = [scores(1, 2, 3), scores(5, 7, 11), scores(2, 0, 4)];
    let memory: Memory | undefined;
    for (const [k, s] of seen.entries()) {
      const next = smooth(memory, s, 0.6);
      memory = next.memory;
      const weights = seen.slice(0, k + 1).map((_, i) => 0.6 ** (k - i));
      const all = weights.reduce((x, y) => x + y, 0);
      for (const f of ['fiA', 'fiB', 'fiNew'] as const)
        expect(next.scores[f]).toBeCloseTo(weights.reduce((sum, w, i) => sum + w * seen[i]![f], 0) / all, 12);
    }
  });
  test('equal scores stay what they are; β = 0 forgets', () => {
    let memory: Memory | undefined;
    for (let k = 0; k < 50; k++) memory = smooth(memory, { ...scores(0.1, 0.2, 0.3), gain: 0.05 }, 0.9).memory;
    const next = smooth(memory, { ...scores(0.1, 0.2, 0.3), gain: 0.05 }, 0.9).scores;
    for (const [f, want] of Object.entries({ fiA: 0.1, fiB: 0.2, fiNew: 0.3, gain: 0.05 }))
      expect(next[f as 'fiA']).toBeCloseTo(want, 12);
    expect(smooth(memory, scores(7, 8, 9), 0).scores).toEqual(scores(7, 8, 9));
  });
});

describe('a test in a run', () => {
  const config = resolveConfig({ data: 'x', seed: 9, lambda: 1.0001, lr: 1e-2, fiEma: 0.5 });
  const ranks: Ranks = mapModules(() => 1, adapters(1, 'f32'));
  const hyper = rate(1e-2, 'f32');

  test('smoothed scores are those of both tests, and begin anew where a module has grown', async () => {
    const programs = steps(cpu);
    const parts = {
      ...chosen({
        ...config,
        budget: 3 + Object.keys(ranks.unet).length + Object.keys(ranks.text).length,
        scale: SCALE,
      }),
      seed: 9,
      places: linears,
      programs,
      frozen: base.f32,
      backend: cpu,
    };
    const start = { state: stateOf(adapters(1, 'f32'), 4, cpu), ranks, memories: {} };
    const tested = async (before: typeof start | Grown<Adapter>, b: Batch, step: number) =>
      (await testedStep(parts, before, [b], [], hyper, step, 400)).decide();
    const first = await tested(start, batch(2, 3, 'f32'), 40);
    const grown = first.decisions.filter((d) => d.expanded).map((d) => d.module);
    expect(grown).toHaveLength(3);
    expect(Object.keys(first.memories).sort()).toEqual(
      first.decisions
        .filter((d) => !d.expanded)
        .map((d) => d.module)
        .sort(),
    );
    // the second test once smoothed, once alone
    const state = (s: State<Adapter>): State<Adapter> =>
      evaluate(
        mapTree<State<Adapter>>((x: Tensor) => mul(x, 1), s),
        cpu,
      );
    const copy = state(first.state);
    const smoothed = await tested(first, batch(2, 4, 'f32'), 80);
    const alone = await tested({ ...first, state: copy, memories: {} }, batch(2, 4, 'f32'), 80);
    for (const [i, d] of rowsOf(smoothed).entries()) {
      const [now, before] = [rowsOf(alone)[i]!, rowsOf(first)[i]!];
      const want = before.expanded ? now.fiOriginal : (0.5 * before.fiOriginal + now.fiOriginal) / 1.5;
      close(d.fiOriginal, want, 1e-12, d.module);
    }
  });
});
