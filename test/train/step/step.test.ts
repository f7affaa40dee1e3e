/** The compiled training step: what it updates, what it must not touch, and what it must equal. */
import { beforeAll, describe, expect, test } from 'vitest';
import {
  cpuBackend,
  evaluate,
  grad,
  leaves,
  mean,
  mul,
  read,
  readScalar,
  sub,
  type Tensor,
  tensor,
} from '../../../core/index.ts';
import { textEncoder } from '../../../models/clip/text-encoder.ts';
import { unet } from '../../../models/unet/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import { attach } from '../../../selora/attach.ts';
import { expandAdapter } from '../../../selora/expand.ts';
import { ratioOf, scoresOf } from '../../../selora/fisher.ts';
import type { Trial } from '../../../selora/trial.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { padState } from '../../../train/step/ranks.ts';
import {
  type Batch,
  type Frozen,
  mapModules,
  networks,
  type PerModule,
  type PerNetwork,
  paramsOf,
  type Slot,
  type State,
} from '../../../train/step/step.ts';
import {
  adapters,
  batch,
  candidatesFor,
  chosen,
  configs,
  type Float,
  frozen,
  part,
  rate,
  startAdapters,
  stateOf,
  steps,
} from '../../support/step-fixture.ts';

const cpu = cpuBackend();
const SCALE = 0.8;
const base = { f32: frozen('f32'), f64: frozen('f64') };
const plain = steps(cpu);
const LR = 1e-2;

type Candidates = PerModule<Trial>;
type Numbers = { readonly [field in 'A' | 'B' | 'mA' | 'vA' | 'mB' | 'vB' | 'age']: Float64Array };
const modules = (s: State<Adapter>): [string, Slot<Adapter>][] =>
  networks.flatMap((n) => Object.entries(s[n]).map(([p, slot]): [string, Slot<Adapter>] => [`${n} ${p}`, slot]));
async function valuesOf(s: State<Adapter>): Promise<Map<string, Numbers>> {
  const out = new Map<string, Numbers>();
  for (const [name, slot] of modules(s)) {
    const of = async (t: Tensor) => Float64Array.from(await read(t));
    const { p, m, v, age } = slot;
    out.set(name, {
      A: await of(p.A),
      B: await of(p.B),
      mA: await of(m.A),
      vA: await of(v.A),
      mB: await of(m.B),
      vB: await of(v.B),
      age: await of(age),
    });
  }
  return out;
}
/** rank r of a wide [d, c] or tall [c, d] field */
const column = (x: Float64Array, capacity: number, r: number) => x.filter((_, i) => i % capacity === r);
const row = (x: Float64Array, width: number, r: number) => x.slice(r * width, (r + 1) * width);
const wide = ['A', 'mA', 'vA'] as const;
const tall = ['B', 'mB', 'vB'] as const;

/** the loss as the paper writes it, on unpadded adapters; nothing of step.ts */
function reference(a: PerNetwork<Adapters>, b: Batch, frozenBase: Frozen): Tensor {
  const context = textEncoder(attach(frozenBase.text, a.text, SCALE), configs.text, b.ids).lastHiddenState;
  const d = sub(unet(attach(frozenBase.unet, a.unet, SCALE), configs.unet, b.x, b.t, context), b.target);
  return mean(mul(mean(mul(d, d), [1, 2, 3]), b.weight));
}
const close = (got: ArrayLike<number>, want: ArrayLike<number>, relative: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  const size = Math.max(1e-30, ...Array.from(want, Math.abs));
  let worst = 0;
  for (let i = 0; i < want.length; i++) worst = Math.max(worst, Math.abs(got[i]! - want[i]!) / size);
  expect(worst, what).toBeLessThanOrEqual(relative);
};

describe('one update', () => {
  test("equals the gradient of the paper's loss and Adam's first step, in f64", async () => {
    const [a, b] = [adapters(2, 'f64'), batch(3, 5, 'f64')];
    const state = stateOf(a, 4, cpu);
    const { state: next, loss } = plain.plain(state, base.f64, b, rate(LR, 'f64', LR / 2));
    const want = evaluate(
      { loss: reference(a, b, base.f64), g: grad((x: PerNetwork<Adapters>) => reference(x, b, base.f64))(a) },
      cpu,
    );
    expect(await readScalar(loss)).toBeCloseTo(await readScalar(want.loss), 13);
    const got = await valuesOf(next);
    let checked = 0;
    for (const n of networks)
      for (const [path, g] of Object.entries(want.g[n])) {
        const x = got.get(`${n} ${path}`)!;
        const lr = n === 'unet' ? LR : LR / 2;
        const [gA, gB] = [await read(g.A), await read(g.B)];
        const [A, B] = [await read(a[n][path]!.A), await read(a[n][path]!.B)];
        for (const [i, v] of Array.from(gA).entries()) {
          const at = Math.floor(i / 2) * 4 + (i % 2);
          expect(x.mA[at]).toBeCloseTo(0.1 * v, 12);
          expect(x.vA[at]).toBeCloseTo(0.001 * v * v, 12);
          if (Math.abs(v) > 1e-6) expect(x.A[at]! - A[i]!).toBeCloseTo((-lr * v) / (Math.abs(v) + 1e-8), 8);
          checked++;
        }
        for (const [i, v] of Array.from(gB).entries())
          if (Math.abs(v) > 1e-6) expect(x.B[i]! - B[i]!).toBeCloseTo((-lr * v) / (Math.abs(v) + 1e-8), 8);
      }
    expect(checked).toBeGreaterThan(300);
  });

  test('the weight of a sample multiplies its loss; weight 0 takes it out', async () => {
    const [a, b] = [adapters(1, 'f64'), batch(3, 6, 'f64')];
    const losses = async (weight: number[]) =>
      Array.from(await read(plain.losses(evaluate(a, cpu), base.f64, { ...b, weight: tensor(weight, [3], 'f64') })));
    const [one, other] = [await losses([1, 1, 1]), await losses([2, 0.5, 0])];
    close(other, [2 * one[0]!, 0.5 * one[1]!, 0], 1e-15, 'losses');
    const without = async (weight: number[]) => {
      const s = stateOf(a, 2, cpu);
      return readScalar(plain.plain(s, base.f64, { ...b, weight: tensor(weight, [3], 'f64') }, rate(LR, 'f64')).loss);
    };
    expect(await without([2, 0.5, 0])).toBeCloseTo((2 * one[0]! + 0.5 * one[1]!) / 3, 13);
  });

  test('takes its state over: using it again names the step', () => {
    const state = stateOf(adapters(1, 'f32'), 2, cpu);
    const b = batch(2, 7, 'f32');
    plain.plain(state, base.f32, b, rate(LR, 'f32'));
    expect(() => plain.plain(state, base.f32, b, rate(LR, 'f32'))).toThrow(/was given to training step; use/);
  });
});

describe('padding', () => {
  test.each(['f32', 'f64'] as const)('a padded step is the unpadded step, bit for bit (%s)', async (dtype) => {
    const run = async (capacity: number) => {
      let s = stateOf(adapters(2, dtype), capacity, cpu);
      const losses: number[] = [];
      for (let k = 0; k < 3; k++) {
        const r = plain.plain(s, base[dtype], batch(2, 50 + k, dtype), rate(LR, dtype));
        s = r.state;
        losses.push(await readScalar(r.loss));
      }
      return { losses, values: await valuesOf(s) };
    };
    const [bare, padded] = [await run(2), await run(5)];
    expect(padded.losses).toEqual(bare.losses);
    for (const [name, want] of bare.values) {
      const got = padded.values.get(name)!;
      const dOut = want.B.length / 2;
      for (let r = 0; r < 5; r++) {
        for (const f of wide)
          expect(column(got[f], 5, r), `${name} ${f}`).toEqual(
            r < 2 ? column(want[f], 2, r) : new Float64Array(want[f].length / 2),
          );
        for (const f of tall)
          expect(row(got[f], dOut, r), `${name} ${f}`).toEqual(r < 2 ? row(want[f], dOut, r) : new Float64Array(dOut));
      }
    }
  });

  test('more room keeps every value', async () => {
    const first = plain.plain(stateOf(adapters(2, 'f32'), 3, cpu), base.f32, batch(2, 9, 'f32'), rate(LR, 'f32'));
    const before = await valuesOf(first.state);
    const after = padState(chosen(), first.state, { unet: 6, text: 3 }, cpu);
    for (const [name, got] of await valuesOf(after)) {
      const want = before.get(name)!;
      const c = name.startsWith('unet') ? 6 : 3;
      expect(got.age).toEqual(Float64Array.from({ length: c }, (_, i) => (i < 3 ? 1 : 0)));
      for (let r = 0; r < 3; r++) {
        for (const f of wide) expect(column(got[f], c, r)).toEqual(column(want[f], 3, r));
        for (const f of tall) expect(row(got[f], want[f].length / 3, r)).toEqual(row(want[f], want[f].length / 3, r));
      }
      expect(got.A.length).toBe((want.A.length / 3) * c);
    }
  });
});

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

describe('accumulation', () => {
  test.each([
    ['f64', 1e-11],
    // u·√n·S with n of a few thousand terms through the network's depth, S some times the gradient itself
    ['f32', 2e-4],
  ] as const)('micro-batches make the update of their union (%s)', async (dtype, tolerance) => {
    const [a, b] = [adapters(2, dtype), batch(6, 30, dtype)];
    const host = new Map(await Promise.all(leaves<Tensor>(b).map(async (t) => [t, await read(t)] as const)));
    const parts = [0, 2, 4].map((from) => part(b, from, from + 2, host));
    const hyper = rate(LR, dtype);
    const fresh = () => stateOf(a, 4, cpu);
    const one = plain.plain(fresh(), base[dtype], b, hyper);
    const many = plain.accumulated(fresh(), base[dtype], parts, hyper);
    expect(many.sums).toBeUndefined();
    const compare = async (x: typeof one, y: typeof one, what: string) => {
      close([await readScalar(x.loss)], [await readScalar(y.loss)], tolerance, `${what} loss`);
      close([await readScalar(x.norm)], [await readScalar(y.norm)], tolerance, `${what} norm`);
      const [got, want] = [await valuesOf(x.state), await valuesOf(y.state)];
      // moments carry the gradients; parameters would hide small ones behind Adam's sign
      for (const [name, w] of want)
        for (const f of ['mA', 'vA', 'mB', 'vB', 'age'] as const)
          close(got.get(name)![f], w[f], tolerance, `${what} ${name} ${f}`);
    };
    await compare(many, one, 'plain');
    const c = candidatesFor(fresh(), a, dtype);
    const t1 = plain.tested(fresh(), base[dtype], b, hyper, c);
    const t3 = plain.accumulated(fresh(), base[dtype], parts, hyper, c);
    await compare(t3, t1, 'tested');
    for (const n of networks)
      for (const [path, s] of Object.entries(t1.sums[n]))
        for (const side of ['a', 'b'] as const)
          close(await read(t3.sums![n][path]![side]), await read(s[side]), tolerance, `sums ${path} ${side}`);
  });
});

describe('fixed-rank LoRA', () => {
  test('is the same step with as much room as rank; the loss falls', async () => {
    let s = stateOf(startAdapters(4), 4, cpu);
    const b = batch(4, 40, 'f32');
    const losses: number[] = [];
    for (let k = 0; k < 12; k++) {
      const r = plain.plain(s, base.f32, b, rate(3e-2, 'f32'));
      s = r.state;
      losses.push(await readScalar(r.loss));
    }
    expect(losses.at(-1)!).toBeLessThan(losses[0]! * 0.9);
    for (const [, slot] of modules(s)) expect([slot.p.A.shape[1], slot.p.B.shape[0]]).toEqual([4, 4]);
  });
  test('recomputed blocks give the same gradients, added up in another order', async () => {
    const run = (checkpointBlocks: boolean) => {
      const p = steps(cpu, { checkpointBlocks });
      const { state } = p.plain(stateOf(adapters(1, 'f64'), 2, cpu), base.f64, batch(2, 3, 'f64'), rate(LR, 'f64'));
      return valuesOf(state);
    };
    const [got, want] = [await run(true), await run(false)];
    for (const [name, w] of want) for (const f of ['mA', 'mB'] as const) close(got.get(name)![f], w[f], 1e-12, name);
  });
});

test('a batch may bring its text context: what the text encoder would have made of its ids', async () => {
  const a = evaluate({ ...adapters(2, 'f64'), text: {} }, cpu);
  const b = batch(2, 5, 'f64');
  const context = evaluate(textEncoder(base.f64.text, configs.text, b.ids).lastHiddenState, cpu);
  const [with_, without] = [{ ...b, context }, b].map((x) => read(plain.losses(a, base.f64, x)));
  expect(await with_).toEqual(await without);
});

test('one sample alone has the loss it has in a batch', async () => {
  const dtype: Float = 'f64';
  const [a, b] = [evaluate(adapters(2, dtype), cpu), batch(3, 5, dtype)];
  const all = await read(plain.losses(a, base[dtype], b));
  const host = new Map(await Promise.all(leaves<Tensor>(b).map(async (t) => [t, await read(t)] as const)));
  for (let i = 0; i < 3; i++) {
    const alone = await read(plain.losses(a, base[dtype], part(b, i, i + 1, host)));
    expect(alone[0]).toBeCloseTo(all[i]!, 13);
  }
});
