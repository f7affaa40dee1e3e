/** What a method may ask of the loop beside growth: kept fields, `after`, `penalty`, `rates`, scores that read the module. */
import { describe, expect, test } from 'vitest';
import { leaves, read, readScalar, type Tensor, tensor } from '../../../core/index.ts';
import { foldKey, hostKey } from '../../../selora/adapter.ts';
import type { Method } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { moduleOfLabels } from '../../../train/step/modules.ts';
import { hyperOf, mapModules, networks, type State } from '../../../train/step/step.ts';
import { longTest } from '../../support/long.ts';
import { batch, linears, part, rate } from '../../support/step-fixture.ts';
import { base, close, fresh, hyper, LR, list, type P, programs, toy, trees, wanted } from '../../support/toy-method.ts';

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

  longTest('its key is that of seed and step, whichever program makes the update', async () => {
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
    expect(hyperOf(selora, { unet: 1, text: 1 }, 9, 3, 5)).not.toHaveProperty('made');
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

test('labels are of modules whatever fields a method trains, keeps or tries', () => {
  const of = moduleOfLabels({ method: toy as unknown as Method, settings: {} });
  for (const label of ['weight', 'bias', 'age', 'p.d', 'm.own.u', 'v.own.seen', 'x'])
    expect(of(`unet.mid_block.proj_in.${label}`), label).toBe('unet.mid_block.proj_in');
  for (const label of ['K', 'slot', 'p']) expect(of(`unet.mid_block.proj_in.${label}`), label).toBeUndefined();
  const selorasOwn = moduleOfLabels({ method: selora as Method, settings: settingsOf(selora as Method) });
  for (const label of ['p.A', 'm.B', 'K', 'slot'])
    expect(selorasOwn(`text.layers.0.fc1.${label}`), label).toBe('text.layers.0.fc1');
  expect(moduleOfLabels({ method: {}, settings: {} })('unet.a.K')).toBeUndefined();
});
