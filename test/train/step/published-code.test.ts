/** `--compat published-code`: what the published code scores, decides and installs, by plain gradients before and after an update. */
import { describe, expect, test, vi } from 'vitest';
import { cpuBackend, entries, evaluate, grad, mean, mul, read, sub, type Tensor } from '../../../core/index.ts';
import { textEncoder } from '../../../models/clip/text-encoder.ts';
import { unet } from '../../../models/unet/index.ts';
import type { Adapter, Adapters } from '../../../selora/adapter.ts';
import { attach } from '../../../selora/attach.ts';
import { type Decision, decide } from '../../../selora/fisher.ts';
import { drawPublished } from '../../../selora/growth.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { type Grown, testedStep } from '../../../train/step/growth.ts';
import {
  type Batch,
  type Frozen,
  mapModules,
  networks,
  type PerNetwork,
  paramsOf,
  type Ranks,
  type State,
} from '../../../train/step/step.ts';
import {
  adapters,
  batch,
  chosen,
  configs,
  frozen,
  linears,
  nowOf,
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

/** the rows of SeLoRA's tests */
const rowsOf = ({ decisions }: Pick<Grown, 'decisions'>) => decisions as readonly Decision[];

describe('the published code', () => {
  const config = resolveConfig({ data: 'x', seed: 9, compat: 'published-code', lambda: 1, lr: 1e-2 });
  const b = batch(3, 8, 'f32');
  const hyper = rate(1e-2, 'f32');
  const given = { ...config, scale: SCALE };
  const programs = steps(cpu, { given });
  const parts = { ...chosen(given), seed: 9, places: linears, programs, frozen: base.f32, backend: cpu };
  const ranks: Ranks = mapModules(() => 1, adapters(1, 'f32'));
  const squares = async (a: Adapter) => {
    let s = 0;
    for (const t of [a.A, a.B]) for (const v of await read(t)) s += v * v;
    return s;
  };

  test('is chosen with its scale, its names and its square; the command line wins', () => {
    expect(config).toMatchObject({ fisher: 'batch', scale: 8, targets: 'paper-code', lambda: 1, gainA: 0 });
    expect(resolveConfig({ data: 'x', compat: 'published-code', scale: 1 }).scale).toBe(1);
  });

  test('FI before the update against FI after it, K = 0: λ = 1 grows where the update made gradients larger, equality too', async () => {
    const start = adapters(1, 'f32');
    const before = gradient(start, b, base.f32);
    const plain = programs.plain(stateOf(start, 1, cpu), base.f32, b, hyper);
    const after = gradient(paramsOf(plain.state), b, base.f32);
    const from = { state: stateOf(start, 4, cpu), ranks, memories: {} };
    const grownStep = await (await testedStep(parts, from, [b], [], hyper, 40, 400)).decide();
    const { ranks: next } = grownStep;
    let [checked, grown] = [0, 0];
    for (const d of rowsOf(grownStep)) {
      const [n, path] = d.module.startsWith('unet.')
        ? (['unet', d.module.slice(5)] as const)
        : (['text', d.module.slice(13)] as const);
      const [orig, exp] = [await squares(before[n][path]!), await squares(after[n][path]!)];
      close(d.fiOriginal, orig, 1e-3, d.module);
      close(d.ratio, exp / orig, 2e-3, d.module);
      expect(d.expanded).toBe(d.ratio >= 1);
      expect(d.key).toBe('zero');
      expect(next[n][path]).toBe(d.expanded ? 2 : 1);
      checked++;
      if (d.expanded) grown++;
    }
    expect(checked).toBeGreaterThan(20);
    expect([grown > 0, grown < checked]).toEqual([true, true]);
    expect(
      decide([{ module: 'm', rank: 1, key: '', scores: { fiA: 1, fiB: 0, fiNew: 0 } }], {
        lambda: 1,
        atLambda: true,
      })[0]!.expanded,
    ).toBe(true);
  });

  test('another column than the tested one is installed, and only the module that grows begins its moments anew', async () => {
    const start = stateOf(adapters(1, 'f32'), 4, cpu);
    const step = await testedStep(parts, { state: start, ranks, memories: {} }, [b], [], hyper, 40, 400);
    const updated = await hostState(step.state);
    const { state, ranks: next } = await step.decide();
    const installed = drawPublished(config, nowOf(linears, ranks, 40), 'installed').candidates;
    for (const n of networks)
      for (const [path, slot] of Object.entries(state[n])) {
        const was = updated.get(`${n} ${path}`)!;
        const grew = next[n][path] === 2;
        const A = await read(slot.p.A);
        const K = await read(installed[n][path]!.K);
        for (const [i, v] of K.entries()) expect(A[i * 4 + 1]).toBe(grew ? v : 0);
        for (const [f, t] of entries<Tensor>({ m: slot.m, v: slot.v, age: slot.age } as never)) {
          const now = Array.from(await read(t));
          if (grew)
            expect(
              now.every((v) => v === 0),
              `${path} ${f}`,
            ).toBe(true);
          else expect(now).toEqual(was[f]!);
        }
      }
  });

  test('a module that has grown is tested with one draw that stays until it grows again', async () => {
    const at = (rank: number) => {
      const r: Ranks = mapModules(() => rank, ranks);
      return drawPublished(config, nowOf(linears, r, 40), 'tested');
    };
    const path = Object.keys(ranks.unet)[0]!;
    const K = async (rank: number) => Array.from(await read(at(rank).candidates.unet[path]!.K));
    expect((await K(1)).every((v) => v === 0)).toBe(true);
    expect((await K(2)).every((v) => v !== 0)).toBe(true);
    expect(await K(2)).toEqual(await K(2));
    expect(await K(3)).not.toEqual(await K(2));
  });
});

async function hostState(s: State<Adapter>) {
  const out = new Map<string, { readonly [field: string]: number[] }>();
  for (const n of networks)
    for (const [path, slot] of Object.entries(s[n])) {
      const fields = await Promise.all(
        entries<Tensor>(slot as never).map(async ([f, t]) => [f, Array.from(await read(t))] as const),
      );
      out.set(`${n} ${path}`, Object.fromEntries(fields));
    }
  return out;
}
