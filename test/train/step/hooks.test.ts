/** What a method may ask of the loop beside growth by one rank: kept fields, `after`, `penalty`, `rates`, several candidates. */
import { describe, expect, test } from 'vitest';
import {
  abs,
  add,
  asFloat,
  cast,
  cpuBackend,
  evaluate,
  grad,
  leaves,
  mean,
  mul,
  read,
  readScalar,
  reshape,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
  uniform,
} from '../../../core/index.ts';
import { textEncoder } from '../../../models/clip/text-encoder.ts';
import { unet } from '../../../models/unet/index.ts';
import { type Adapter, foldKey, hostKey } from '../../../selora/adapter.ts';
import { updateModules } from '../../../selora/attach.ts';
import { Field, type Method } from '../../../selora/methods/method.ts';
import { selora } from '../../../selora/methods/selora.ts';
import type { Trial } from '../../../selora/trial.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { testedStep } from '../../../train/step/growth.ts';
import { moduleOfLabels } from '../../../train/step/modules.ts';
import { slotOf } from '../../../train/step/ranks.ts';
import {
  createSteps,
  hyperOf,
  mapModules,
  networks,
  type PerModule,
  paramsOf,
  type Ranks,
  type State,
  type Steps,
} from '../../../train/step/step.ts';
import { rng } from '../../support/gradcheck.ts';
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

const cpu = cpuBackend();
const base = { f32: frozen('f32'), f64: frozen('f64') };
const LR = 1e-2;
const list = async (t: Tensor): Promise<number[]> => Array.from(await read(evaluate(t, cpu)));
const close = (got: readonly number[], want: readonly number[], by: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  const size = Math.max(1e-30, ...want.map(Math.abs));
  expect(Math.max(...want.map((w, i) => Math.abs(got[i]! - w))) / size, what).toBeLessThanOrEqual(by);
};

/** W ⊙ (1 + d ⊙ mask + u) by outputs; mask, a running mean of |∂d| and a draw are kept */
type P = {
  readonly d: Tensor;
  readonly own: { readonly u: Tensor; readonly mask: Tensor; readonly seen: Tensor; readonly draw: Tensor };
};
type Sums<T> = { readonly mean: T; readonly square: T; readonly d: T };
const toy: Method<P, { readonly weight?: number }, { readonly x: Tensor }, Sums<Tensor>, Sums<Float32Array>> = {
  name: 'toy',
  doc: 'a factor for every output, under a mask',
  source: 'this test',
  settings: {},
  facts: () => ({ lambda: null, testEvery: null, scale: 1, initA: 0 }),
  leastRank: 1,
  ranks: (_c, places) => ({
    unet: Object.fromEntries([...places.unet.keys()].map((path) => [path, 1])),
    text: Object.fromEntries([...places.text.keys()].map((path) => [path, 1])),
  }),
  room: () => 1,
  fields: ([dOut]) => {
    const kept = new Field([dOut], null, false);
    return { d: new Field([dOut]), own: { u: new Field([dOut]), mask: kept, seen: kept, draw: kept } };
  },
  init: () => ({}),
  attach: (module, { d, own: { u, mask } }) => ({
    ...module,
    weight: mul(asFloat(module.weight), reshape(add(add(1, mul(d, mask)), u), [d.shape[0]!, 1])),
  }),
  penalty: (modules, { weight = 0 }) => modules.map(({ d }) => mul(sum(square(d)), weight)).reduce((x, y) => add(x, y)),
  rates: () => ({ d: 0.5, 'own.u': 0.25 }),
  after: (slot, g, { step, key }) => {
    const { d, own } = slot.p;
    const mask = sub(1, own.mask);
    const seen = add(mul(own.seen, 0.5), mul(abs(g.d), 0.5));
    // the step's number as a part of the draw shows that it arrives
    const draw = cast(add(uniform(key, own.draw.shape), step), own.draw.dtype);
    return { ...slot, p: { d, own: { ...own, mask, seen, draw } } };
  },
  growth: {
    due: () => true,
    count: (_c, n) => n,
    trial: () => ({ x: new Field([1]) }),
    place: (p) => p,
    settle: (g) => g,
    measure: () => ({
      samples: (g) => mean(square(g.d), 0),
      scores: (g, kept, p) => ({ mean: g.d, square: kept as Tensor, d: p.d }),
    }),
    install: (slot) => slot,
    test: () => () => Promise.reject(new Error('not asked here')),
    memory: undefined as never,
  },
  toFile: () => undefined,
  fromFile: () => {
    throw new Error('not asked here');
  },
};

const trees = (dtype: 'f32' | 'f64'): PerModule<P> => {
  const random = rng(41);
  const draw = (n: number, size: number) =>
    tensor(
      Array.from({ length: n }, () => Math.fround((random() * 2 - 1) * size)),
      [n],
      dtype,
    );
  return mapModules(
    ([n]: readonly [number, number]): P => ({
      d: draw(n, 0.2),
      own: {
        u: draw(n, 0.2),
        mask: tensor(
          Array.from({ length: n }, (_, i) => 1 - (i % 2)),
          [n],
          dtype,
        ),
        seen: draw(n, 1),
        draw: tensor(new Float32Array(n), [n], dtype),
      },
    }),
    { unet: Object.fromEntries(linears.unet), text: Object.fromEntries(linears.text) },
  );
};
const fields = toy.fields([1, 1], 1, {});
const fresh = (dtype: 'f32' | 'f64'): State<P> =>
  evaluate(
    mapModules((p: P) => slotOf(p, fields, 1), trees(dtype)),
    cpu,
  );
const made = new Map<string, Steps<P, { readonly x: Tensor }, Sums<Tensor>, Sums<Float32Array>>>();
const programs = (given: { readonly weight?: number; readonly clip?: number } = {}) => {
  const name = JSON.stringify(given);
  if (!made.has(name)) made.set(name, programsOf(given));
  return made.get(name)!;
};
const programsOf = (given: { readonly weight?: number; readonly clip?: number }) =>
  createSteps({
    backend: cpu,
    configs,
    method: toy,
    settings: given,
    adam: adamDefaults,
    clip: given.clip ?? 0,
    checkpointBlocks: false,
  });
const hyper = (dtype: 'f32' | 'f64', step = 1, seed = 9) => ({ ...hyperOf(toy, { unet: LR, text: LR }, seed, step), ...rate(LR, dtype) }); // biome-ignore format: one line

/** gradients of the mean loss, from the layers themselves and nothing of train/step */
function wanted(b: ReturnType<typeof batch>): PerModule<{ readonly d: Tensor; readonly u: Tensor }> {
  const all = trees('f64');
  type Moved = PerModule<{ readonly d: Tensor; readonly u: Tensor }>;
  const loss = (moved: Moved): Tensor => {
    const net = (n: 'unet' | 'text') =>
      updateModules(base.f64[n] as never, moved[n], ({ weight, ...rest }, { d, u }, path) => {
        const factor = add(add(1, mul(d, all[n][path]!.own.mask)), u);
        return { ...rest, weight: mul(weight, reshape(factor, [factor.shape[0]!, 1])) };
      });
    const context = textEncoder(net('text'), configs.text, b.ids).lastHiddenState;
    const e = sub(unet(net('unet'), configs.unet, b.x, b.t, context), b.target);
    return mean(mul(mean(mul(e, e), [1, 2, 3]), b.weight));
  };
  return evaluate(grad(loss)(mapModules(({ d, own: { u } }: P) => ({ d, u }), all)) as never, cpu);
}

describe('kept fields and `after`', () => {
  test('the layer sees what is kept, no gradient moves it, its moments are one zero each', async () => {
    const b = batch(3, 5, 'f64');
    const { state, norm } = programs().plain(fresh('f64'), base.f64, b, hyper('f64'));
    const g = wanted(b);
    let squares = 0;
    for (const n of networks)
      for (const [path, slot] of Object.entries(state[n])) {
        const [gd, gu] = [await list(g[n][path]!.d), await list(g[n][path]!.u)];
        squares += [...gd, ...gu].reduce((s, x) => s + x * x, 0);
        close(
          await list(slot.m.d),
          gd.map((x) => 0.1 * x),
          1e-9,
          `${path} m.d`,
        );
        // the mask hides every second output
        expect(gd.every((x, i) => (i % 2 === 1 ? x === 0 : true))).toBe(true);
        for (const name of ['mask', 'seen', 'draw'] as const)
          for (const moments of [slot.m, slot.v]) {
            expect(moments.own[name].shape).toEqual([]);
            expect(await list(moments.own[name])).toEqual([0]);
          }
      }
    expect(squares).toBeGreaterThan(0);
    close([await readScalar(norm)], [Math.sqrt(squares)], 1e-9, 'norm');
  });

  test('`after` gets the module after its update, the clipped gradient, the step, and a key of its own', async () => {
    const b = batch(3, 5, 'f64');
    const g = wanted(b);
    const clip = 1e-3;
    const { state, norm } = programs({ clip }).plain(fresh('f64'), base.f64, b, hyper('f64', 7));
    const factor = clip / ((await readScalar(norm)) + 1e-6);
    expect(factor).toBeLessThan(1);
    const start = trees('f64');
    const drawn = new Set<string>();
    for (const n of networks)
      for (const [path, { p }] of Object.entries(state[n])) {
        const was = start[n][path]!.own;
        const [seen, mask, gd] = [await list(was.seen), await list(was.mask), await list(g[n][path]!.d)];
        expect(await list(p.own.mask)).toEqual(mask.map((x) => 1 - x));
        close(
          await list(p.own.seen),
          seen.map((x, i) => 0.5 * x + 0.5 * Math.abs(factor * gd[i]!)),
          1e-9,
          `${path} seen`,
        );
        const draw = await list(p.own.draw);
        expect(draw.every((x) => x >= 7 && x < 8)).toBe(true);
        drawn.add(draw.join());
      }
    expect(drawn.size).toBe(linears.unet.size + linears.text.size);
  });

  test('its key is that of seed and step, whichever program makes the update', async () => {
    const b = batch(2, 5, 'f32');
    const x = mapModules(() => ({ x: tensor([0]) }), trees('f32'));
    const p = programs();
    const draws = async (s: State<P>) => {
      const all = networks.flatMap((n) => Object.values(s[n]).map((slot) => list(slot.p.own.draw)));
      return (await Promise.all(all)).flat();
    };
    const at = (step: number, seed: number) => hyper('f32', step, seed);
    const one = await draws(p.plain(fresh('f32'), base.f32, b, at(3, 9)).state);
    expect(await draws(p.tested(fresh('f32'), base.f32, b, at(3, 9), x).state)).toEqual(one);
    expect(await draws(p.accumulated(fresh('f32'), base.f32, [b, b], at(3, 9)).state)).toEqual(one);
    expect(await draws(p.plain(fresh('f32'), base.f32, b, at(3, 10)).state)).not.toEqual(one);
    const later = await draws(p.plain(fresh('f32'), base.f32, b, at(4, 9)).state);
    expect(later.map((v) => v - 1)).not.toEqual(one);
    expect(hyperOf(selora, { unet: 1, text: 1 }, 9, 3)).not.toHaveProperty('made');
    expect(() => p.plain(fresh('f32'), base.f32, b, rate(LR, 'f32'))).toThrow('toy: the step is not told which it is');
    expect(Array.from(await read(at(3, 9).made!.key))).toEqual([...foldKey(hostKey(9), 'after', 3)]);
  });
});

test('rates: a field moves by its factor of the learning rate', async () => {
  const b = batch(3, 6, 'f64');
  const g = wanted(b);
  const start = trees('f64');
  const { state } = programs().plain(fresh('f64'), base.f64, b, hyper('f64'));
  let moved = 0;
  for (const n of networks)
    for (const [path, { p }] of Object.entries(state[n]))
      for (const [after, before, gradient, factor] of [
        [p.d, start[n][path]!.d, g[n][path]!.d, 0.5],
        [p.own.u, start[n][path]!.own.u, g[n][path]!.u, 0.25],
      ] as const) {
        const [x, y, slopes] = [await list(after), await list(before), await list(gradient)];
        for (const [i, slope] of slopes.entries()) {
          if (Math.abs(slope) < 1e-6) continue;
          moved++;
          expect(x[i]! - y[i]!).toBeCloseTo((-LR * factor * slope) / (Math.abs(slope) + 1e-8), 8);
        }
      }
  expect(moved).toBeGreaterThan(100);
});

describe('penalty', () => {
  const weight = 0.3;
  const [b, x] = [batch(4, 6, 'f64'), mapModules(() => ({ x: tensor([0], [1], 'f64') }), trees('f64'))];
  const [bare, with_] = [programs(), programs({ weight })];
  type Made = { readonly state: State<P>; readonly loss: Tensor };
  const check = async (plain: Made, penalised: Made) => {
    const start = trees('f64');
    let squares = 0;
    for (const n of networks)
      for (const [path, slot] of Object.entries(penalised.state[n])) {
        const d = await list(start[n][path]!.d);
        squares += d.reduce((s, v) => s + v * v, 0);
        const before = await list(plain.state[n][path]!.m.d);
        // ∂(w·Σd²)/∂d = 2·w·d, a tenth of it in Adam's first moment
        close(
          await list(slot.m.d),
          before.map((m, i) => m + 0.1 * 2 * weight * d[i]!),
          1e-11,
          path,
        );
        close(await list(slot.m.own.u), await list(plain.state[n][path]!.m.own.u), 1e-11, `${path} u`);
      }
    close([await readScalar(penalised.loss)], [(await readScalar(plain.loss)) + weight * squares], 1e-12, 'loss');
  };
  test('the gradient gains 2·w·d in a step', () =>
    check(bare.plain(fresh('f64'), base.f64, b, hyper('f64')), with_.plain(fresh('f64'), base.f64, b, hyper('f64'))));
  test('the same in a step with a test, by the mean over samples', () =>
    check(
      bare.tested(fresh('f64'), base.f64, b, hyper('f64'), x),
      with_.tested(fresh('f64'), base.f64, b, hyper('f64'), x),
    ));
  test('and in micro-batches, once and not once for each', async () => {
    const host = new Map(await Promise.all(leaves<Tensor>(b).map(async (t) => [t, await read(t)] as const)));
    const halves = [part(b, 0, 2, host), part(b, 2, 4, host)];
    const run = (p: typeof bare) => p.accumulated(fresh('f64'), base.f64, halves, hyper('f64'));
    await check(run(bare), run(with_));
  });
});

test('scores see the mean gradient, what was kept of single samples, and the module before its update', async () => {
  const b = batch(3, 5, 'f64');
  const x = mapModules(() => ({ x: tensor([0], [1], 'f64') }), trees('f64'));
  const p = programs();
  const g = wanted(b);
  const start = trees('f64');
  const one = p.tested(fresh('f64'), base.f64, b, hyper('f64'), x).sums;
  const other = p.scores(fresh('f64'), base.f64, [b], x);
  for (const sums of [one, other])
    for (const n of networks)
      for (const [path, s] of Object.entries(sums[n])) {
        const mean = await list(g[n][path]!.d);
        close(await list(s.mean), mean, 1e-9, `${path} mean`);
        expect(await list(s.d)).toEqual(await list(start[n][path]!.d));
        // mean gᵢ² is at least (mean gᵢ)², and more where samples differ
        const squares = await list(s.square);
        for (const [i, v] of squares.entries()) expect(v).toBeGreaterThanOrEqual(mean[i]! ** 2 * (1 - 1e-12));
        expect(squares.some((v, i) => v > mean[i]! ** 2 * 1.01)).toBe(true);
      }
});

describe('several candidates for one module', () => {
  const a = adapters(2, 'f64');
  const b = batch(3, 5, 'f64');
  const start = () => stateOf(a, 5, cpu);
  /** two columns in ranks 2 and 3, and each of them alone in its own */
  const [first, second] = [candidatesFor(start(), a, 'f64'), candidatesFor(start(), a, 'f64')];
  const row = (rank: number, capacity: number) => Array.from({ length: capacity }, (_, i) => (i === rank ? 1 : 0));
  const columns = async (t: Trial, other: Trial): Promise<Trial> => {
    const [K, L] = [await list(t.K), (await list(other.K)).map((v) => Math.fround(v * 0.5 - 0.1))];
    return {
      K: tensor(
        K.flatMap((v, i) => [v, L[i]!]),
        [K.length, 2],
        'f64',
      ),
      slot: tensor([...row(2, 5), ...row(3, 5)], [2, 5], 'f64'),
    };
  };
  const both = async (): Promise<PerModule<Trial>> => {
    const of = async (n: 'unet' | 'text') =>
      Object.fromEntries(
        await Promise.all(
          Object.entries(first[n]).map(async ([path, t]) => [path, await columns(t, second[n][path]!)] as const),
        ),
      );
    return { unet: await of('unet'), text: await of('text') };
  };
  /** one of both, in the rank it is tried in */
  const alone = async (all: PerModule<Trial>, k: 0 | 1): Promise<PerModule<Trial>> => {
    const host = new Map<Tensor, number[]>();
    for (const n of networks) for (const { K } of Object.values(all[n])) host.set(K, await list(K));
    return mapModules(({ K }: Trial) => {
      const values = host.get(K)!.filter((_, i) => i % 2 === k);
      return { K: tensor(values, [values.length, 1], 'f64'), slot: tensor(row(2 + k, 5), [1, 5], 'f64') };
    }, all);
  };

  test('one pass scores each as it would be alone, and its update is that of the plain step', async () => {
    const p = steps(cpu);
    const all = await both();
    const r = p.tested(start(), base.f64, b, rate(LR, 'f64'), all);
    for (const k of [0, 1] as const) {
      const s = p.tested(start(), base.f64, b, rate(LR, 'f64'), await alone(all, k)).sums;
      for (const n of networks)
        for (const [path, got] of Object.entries(r.sums[n])) {
          const [together, single] = [await list(got.b), await list(s[n][path]!.b)];
          close([together[2 + k]!], [single[2 + k]!], 1e-9, path);
          expect(together[2 + k]).toBeGreaterThan(0);
        }
    }
    const plain = p.plain(start(), base.f64, b, rate(LR, 'f64')).state;
    for (const n of networks)
      for (const [path, slot] of Object.entries(plain[n]))
        for (const [i, t] of leaves<Tensor>(r.state[n][path] as never).entries())
          close(await list(t), await list(leaves<Tensor>(slot as never)[i]!), 1e-9, path);
  });

  test('a method that grows by two ranks at a time gets them, room for two more, and the same function', async () => {
    // where the programs have room for four ranks
    const all = mapModules(
      ({ K }: Trial): Trial => ({ K, slot: tensor([...row(2, 4), ...row(3, 4)], [2, 4], 'f64') }),
      await both(),
    );
    const method: typeof selora = {
      ...selora,
      room: (_c, most) => most + 2,
      growth: {
        ...selora.growth!,
        test: (passes, now) => {
          passes.update(all);
          return async () => ({
            decisions: [],
            memories: now.memories,
            ranks: mapModules((r: number) => r + 2, now.ranks),
            install: all,
          });
        },
      },
    };
    const { settings } = chosen();
    const p = createSteps({ backend: cpu, configs, method, settings, adam: adamDefaults, clip: 0, checkpointBlocks: false }); // biome-ignore format: one line
    const ranks: Ranks = mapModules(() => 2, a);
    const parts = { method, settings, seed: 9, places: linears, programs: p, frozen: base.f64, backend: cpu };
    const step = testedStep(parts, { state: stateOf(a, 4, cpu), ranks, memories: {} }, [b], [], rate(LR, 'f64'), 40);
    const losses = await list(p.losses(paramsOf(step.state), base.f64, b));
    const grown = await step.decide();
    expect(Object.values(grown.ranks.unet).every((r) => r === 4)).toBe(true);
    expect(grown.padded).toBe(true);
    expect(await list(p.losses(paramsOf(grown.state), base.f64, b))).toEqual(losses);
    for (const n of networks)
      for (const [path, slot] of Object.entries(grown.state[n])) {
        expect([slot.p.A.shape[1], slot.p.B.shape[0]]).toEqual([6, 6]);
        const [A, K] = [await list(slot.p.A), await list(all[n][path]!.K)];
        for (let i = 0; i < K.length / 2; i++)
          expect([A[6 * i + 2], A[6 * i + 3], A[6 * i + 4]]).toEqual([K[2 * i], K[2 * i + 1], 0]);
        expect(await list(slot.age)).toEqual([1, 1, 0, 0, 0, 0]);
      }
  });

  test('of two candidates one may be taken: a row of zeros takes the other nowhere', async () => {
    const p = steps(cpu);
    const all = await both();
    const taken = mapModules(
      ({ K }: Trial): Trial => ({ K, slot: tensor([...row(-1, 5), ...row(2, 5)], [2, 5], 'f64') }),
      all,
    );
    const installed = p.install(start(), taken);
    for (const n of networks)
      for (const [path, { p: own }] of Object.entries(installed[n])) {
        const [A, K] = [await list((own as Adapter).A), await list(all[n][path]!.K)];
        for (let i = 0; i < K.length / 2; i++) expect([A[5 * i + 2], A[5 * i + 3]]).toEqual([K[2 * i + 1], 0]);
      }
  });
});

test('labels are of modules whatever fields a method trains, keeps or tries', () => {
  const of = moduleOfLabels({ method: toy as unknown as Method });
  for (const label of ['weight', 'bias', 'age', 'p.d', 'm.own.u', 'v.own.seen', 'x'])
    expect(of(`unet.mid_block.proj_in.${label}`), label).toBe('unet.mid_block.proj_in');
  for (const label of ['K', 'slot', 'p']) expect(of(`unet.mid_block.proj_in.${label}`), label).toBeUndefined();
  const selorasOwn = moduleOfLabels({ method: selora as Method });
  for (const label of ['p.A', 'm.B', 'K', 'slot'])
    expect(selorasOwn(`text.layers.0.fc1.${label}`), label).toBe('text.layers.0.fc1');
  expect(moduleOfLabels({ method: {} })('unet.a.K')).toBeUndefined();
});
