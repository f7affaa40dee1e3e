/** The compiled training step: what it updates, what it must not touch, and what it must equal. */
import { describe, expect, test } from 'vitest';
import { evaluate, grad, leaves, read, readScalar, type Tensor, tensor } from '../../../core/index.ts';
import { textEncoder } from '../../../models/clip/text-encoder.ts';
import type { Adapters } from '../../../selora/adapter.ts';
import { padState } from '../../../train/step/ranks.ts';
import { mapModules, networks, type PerNetwork } from '../../../train/step/step.ts';
import { longRows } from '../../support/long.ts';
import {
  adapters,
  batch,
  candidatesFor,
  chosen,
  configs,
  type Float,
  part,
  rate,
  startAdapters,
  stateOf,
  steps,
} from '../../support/step-fixture.ts';

import {
  base,
  close,
  column,
  cpu,
  LR,
  modules,
  plain,
  reference,
  row,
  tall,
  valuesOf,
  wide,
} from '../../support/step-values.ts';

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
    const after = padState(
      chosen(),
      first.state,
      mapModules((_slot, _path, n) => (n === 'unet' ? 6 : 3), first.state),
      cpu,
    );
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

describe('accumulation', () => {
  const precisions = [
    ['f64', 1e-11],
    // u·√n·S with n of a few thousand terms through the network's depth, S some times the gradient itself
    ['f32', 2e-4],
  ] as const;
  test.each(longRows(precisions, ([dtype]) => dtype === 'f64'))(
    'micro-batches make the update of their union (%s)',
    async (dtype, tolerance) => {
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
    },
  );
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
