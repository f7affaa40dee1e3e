/** A candidate inside the step: scored without a trace, installed without a change of the function. */
import { beforeAll, describe, expect, test } from 'vitest';
import { evaluate, grad, leaves, read, readScalar, type Tensor, tensor } from '../../../core/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import { expandAdapter } from '../../../selora/expand.ts';
import { ratioOf, scoresOf } from '../../../selora/fisher.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { mapModules, networks, type PerNetwork, paramsOf } from '../../../train/step/step.ts';
import { adapters, batch, candidatesFor, part, rate, stateOf, steps } from '../../support/step-fixture.ts';

import {
  base,
  type Candidates,
  close,
  column,
  cpu,
  LR,
  type Numbers,
  plain,
  reference,
  row,
  tall,
  valuesOf,
  wide,
} from '../../support/step-values.ts';

describe('the expansion test inside the step', () => {
  let [tested, bare]: [Map<string, Numbers>, Map<string, Numbers>] = [new Map(), new Map()];
  const [a, b] = [adapters(2, 'f64'), batch(3, 5, 'f64')];
  const weightDecay = { adam: { ...adamDefaults, weightDecay: 0.01 }, clip: 0.5 };
  const programs = steps(cpu, weightDecay);
  const hyper = rate(LR, 'f64');
  let sums: ReturnType<typeof programs.tested>['sums'];
  let candidates: Candidates;
  let norms: [number, number];
  beforeAll(async () => {
    const state = stateOf(a, 4, cpu);
    candidates = candidatesFor(state, a, 'f64');
    const t = programs.tested(state, base.f64, b, hyper, candidates);
    const p = programs.plain(stateOf(a, 4, cpu), base.f64, b, hyper);
    [tested, bare, sums] = [await valuesOf(t.state), await valuesOf(p.state), t.sums];
    norms = [await readScalar(t.norm), await readScalar(p.norm)];
    expect(await readScalar(t.loss)).toBeCloseTo(await readScalar(p.loss), 13);
  });

  test('updates the trained ranks as the plain step does', () => {
    expect(norms[0]).toBeCloseTo(norms[1], 12);
    for (const [name, want] of bare)
      for (const f of [...wide, ...tall]) close(tested.get(name)![f], want[f], 1e-9, `${name} ${f}`);
  });

  test('a rejected candidate leaves no trace: its rank is zero in every field, to the bit', () => {
    for (const [name, got] of tested) {
      const dOut = got.B.length / 4;
      for (const r of [2, 3]) {
        for (const f of wide)
          expect(
            column(got[f], 4, r).every((v) => v === 0),
            `${name} ${f}`,
          ).toBe(true);
        for (const f of tall)
          expect(
            row(got[f], dOut, r).every((v) => v === 0),
            `${name} ${f}`,
          ).toBe(true);
      }
    }
  });

  test('its sums are eq. 3: squared gradients of single samples on adapters expanded by concatenation', async () => {
    const expanded = mapModules((x: Adapter, path, n) => expandAdapter(x, candidates[n][path]!.K), a);
    const host = new Map(await Promise.all(leaves<Tensor>(b).map(async (t) => [t, await read(t)] as const)));
    const total = mapModules(
      (x: Adapter) => ({ a: new Float64Array(rankOf(x)), b: new Float64Array(rankOf(x)) }),
      expanded,
    );
    for (let i = 0; i < 3; i++) {
      const g = evaluate(
        grad((x: PerNetwork<Adapters>) => reference(x, part(b, i, i + 1, host), base.f64))(expanded),
        cpu,
      );
      for (const n of networks)
        for (const [path, { A, B }] of Object.entries(g[n])) {
          const t = total[n][path]!;
          for (const [j, v] of Array.from(await read(A)).entries()) t.a[j % 3]! += v ** 2 / 3;
          for (const [j, v] of Array.from(await read(B)).entries()) t.b[Math.floor(j / B.shape[1]!)]! += v ** 2 / 3;
        }
    }
    for (const n of networks)
      for (const [path, want] of Object.entries(total[n])) {
        const got = sums[n][path]!;
        const [ga, gb] = [await read(got.a), await read(got.b)];
        close([...ga].slice(0, 3), want.a, 1e-12, `${path} a`);
        close([...gb].slice(0, 3), want.b, 1e-12, `${path} b`);
        const ratio = ratioOf(path, scoresOf(ga, gb, 2));
        const original = [0, 1].reduce((s, r) => s + want.a[r]! + want.b[r]!, 0);
        expect(ratio).toBeCloseTo((original + want.b[2]!) / original, 11);
      }
  });
});

describe('installing a candidate', () => {
  const pick = (c: Candidates, accept: (path: string) => boolean): Candidates =>
    mapModules(
      ({ K, slot }, path) => ({ K, slot: accept(path) ? slot : tensor(new Float32Array(slot.shape[1]!), slot.shape) }),
      c,
    );
  const accept = (path: string) => path.endsWith('to_q') || path.endsWith('fc1');

  test('puts K where it was tried, resets that age only, and changes no output bit', async () => {
    const a = adapters(2, 'f32');
    const first = plain.plain(stateOf(a, 4, cpu), base.f32, batch(2, 8, 'f32'), rate(LR, 'f32'));
    const candidates = candidatesFor(first.state, a, 'f32');
    const b = batch(3, 12, 'f32');
    const before = await valuesOf(first.state);
    const losses = await read(plain.losses(paramsOf(first.state), base.f32, b));
    const installed = plain.install(first.state, pick(candidates, accept));
    expect(await read(plain.losses(paramsOf(installed), base.f32, b))).toEqual(losses);
    let grown = 0;
    for (const [name, got] of await valuesOf(installed)) {
      const want = before.get(name)!;
      const [n, path] = name.split(' ') as ['unet' | 'text', string];
      const K = Float64Array.from(await read(candidates[n][path]!.K));
      if (!accept(path)) {
        expect(got, name).toEqual(want);
        continue;
      }
      grown++;
      expect(column(got.A, 4, 2), name).toEqual(K);
      for (const r of [0, 1, 3]) expect(column(got.A, 4, r)).toEqual(column(want.A, 4, r));
      expect(got.age).toEqual(Float64Array.of(1, 1, 0, 1));
      for (const f of ['B', 'mA', 'vA', 'mB', 'vB'] as const) expect(got[f]).toEqual(want[f]);
    }
    expect(grown).toBeGreaterThan(3);
  });

  test("the new rank's first update is a fresh Adam's, beside ranks of age 6", async () => {
    const a = adapters(1, 'f64');
    let s = stateOf(a, 4, cpu);
    for (let k = 0; k < 5; k++) s = plain.plain(s, base.f64, batch(2, 60 + k, 'f64'), rate(LR, 'f64')).state;
    const all = candidatesFor(s, a, 'f64');
    s = plain.tested(s, base.f64, batch(2, 65, 'f64'), rate(LR, 'f64'), all).state;
    s = plain.install(
      s,
      mapModules((c) => c, all),
    );
    const before = await valuesOf(s);
    const unpadded = evaluate(paramsOf(s), cpu);
    const b = batch(2, 66, 'f64');
    const g = evaluate(grad((x: PerNetwork<Adapters>) => reference(x, b, base.f64))(unpadded), cpu);
    const after = await valuesOf(plain.plain(s, base.f64, b, rate(LR, 'f64')).state);
    let moved = 0;
    for (const [name, got] of after) {
      const [n, path] = name.split(' ') as ['unet' | 'text', string];
      const dOut = got.B.length / 4;
      const gradient = row(Float64Array.from(await read(g[n][path]!.B)), dOut, 1);
      expect(got.age.slice(0, 2)).toEqual(Float64Array.of(7, 1));
      // its column has gradient zero, because its row was zero
      expect(column(got.A, 4, 1)).toEqual(column(before.get(name)!.A, 4, 1));
      for (const [i, v] of row(got.B, dOut, 1).entries()) {
        const d = gradient[i]!;
        if (Math.abs(d) < 1e-7) continue;
        moved++;
        expect(v).toBeCloseTo((-LR * d) / (Math.abs(d) + 1e-8), 9);
      }
    }
    expect(moved).toBeGreaterThan(100);
  });
});
