/** AdaLoRA and DyLoRA step by step in f64 against PEFT, kohya's scripts and the paper's definition (`golden/methods/rivals.*`). */
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import {
  add,
  evaluate,
  grad,
  mean,
  square,
  sub,
  type Tensor,
  tanh,
  tensor,
  valueAndGrad,
} from '../../../core/index.ts';
import { linear } from '../../../nn/index.ts';
import { adalora, budgetAt } from '../../../selora/methods/adalora.ts';
import { dylora } from '../../../selora/methods/dylora.ts';
import type { Method, Params, Place, Places } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { slotOf } from '../../../train/step/ranks.ts';
import { mapModules, type PerModule, type State } from '../../../train/step/step.ts';
import { updater } from '../../../train/step/update.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../../train/verify/golden.ts';
import { cpu, numbers } from '../../support/gradcheck.ts';

const folder = path.join(import.meta.dirname, '../../golden/methods');
const list = z.array(z.number());
const schema = z.object({
  adalora: z.object({
    cases: z.record(
      z.string(),
      z.looseObject({
        init_r: z.number(),
        target_r: z.number(),
        tinit: z.number(),
        tfinal: z.number(),
        deltaT: z.number(),
        total_step: z.number(),
        lora_alpha: z.number(),
        orth_reg_weight: z.number(),
        beta1: z.number(),
        beta2: z.number(),
        lr: z.number(),
        init_budget: z.number(),
        target_budget: z.number(),
        losses_with_penalty: list,
        budget: list,
        nonzero_E: z.array(list),
      }),
    ),
  }),
  dylora: z.object({
    cases: z.record(
      z.string(),
      z.looseObject({
        rank: z.number(),
        alpha: z.number(),
        unit: z.number().optional(),
        lr: z.number(),
        n_used: list.optional(),
        b: list.optional(),
        losses: list,
      }),
    ),
  }),
});
let json: z.output<typeof schema>;
let tensors: GoldenTensors;
beforeAll(async () => {
  json = await readGoldenJson(folder, 'rivals.json', schema);
  tensors = await readGoldenTensors(path.join(folder, 'rivals.safetensors'));
});

/** a tensor of the reference; `at`: one of a list of them */
const host = (name: string, at?: number) => {
  const { data, shape } = need(tensors, name);
  if (at === undefined) return { data, shape };
  const rest = shape.slice(1);
  const size = rest.reduce((n, side) => n * side, 1);
  return { data: data.subarray(at * size, (at + 1) * size), shape: rest };
};
const swapped = ({ data, shape }: { readonly data: Float64Array; readonly shape: readonly number[] }) => {
  const [n, m] = shape as [number, number];
  return { shape: [m, n], data: Float64Array.from(data, (_, i) => data[(i % n) * m + Math.floor(i / n)]!) };
};
const f64 = ({ data, shape }: { readonly data: ArrayLike<number>; readonly shape: readonly number[] }): Tensor =>
  tensor(Array.from(data), shape, 'f64');
const plain = (name: string, at?: number) => f64(host(name, at));
const close = (got: readonly number[], want: ArrayLike<number>, by: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  for (const [i, x] of got.entries()) expect(Math.abs(x - want[i]!), `${what} [${i}]`).toBeLessThanOrEqual(by);
};
const made = (step: number, steps: number) => ({
  step: tensor(step),
  steps: tensor(steps),
  key: tensor(Uint32Array.of(1, 2)),
  shared: tensor(Uint32Array.of(3, 4)),
});
const hyperAt = (lr: number, step: number, steps: number) => ({
  unet: tensor([lr], [], 'f64'),
  text: tensor([lr], [], 'f64'),
  made: made(step, steps),
});
const runner = (method: Method, settings: Record<string, unknown>) => ({
  method,
  settings,
  adam: adamDefaults,
  clip: 0,
});

describe('AdaLoRA is PEFT’s', () => {
  const layers = ['l0', 'l1', 'l2'];
  const method = adalora as unknown as Method;
  /** the network of the reference: tanh between its layers */
  const lossOf = (c: Record<string, unknown>, x: Tensor, y: Tensor) => (p: PerModule<Params>) => {
    let h = x;
    for (const [i, name] of layers.entries()) {
      const frozen = { weight: plain(`adalora.${name}.W`), bias: plain(`adalora.${name}.b`) };
      h = linear(method.attach(frozen, p.unet[name]!, c) as never, h);
      if (i < layers.length - 1) h = tanh(h);
    }
    return add(mean(square(sub(h, y))), method.penalty!(Object.values(p.unet), c));
  };

  test.each(['a', 'b'])('case %s: losses, masks and every value after every step', async (name) => {
    const info = json.adalora.cases[name]!;
    const c = {
      ...settingsOf(method, { rank: info.init_r, targetRank: info.target_r }),
      scale: info.lora_alpha / (info.init_r + 1e-5),
      budgetWarmup: info.tinit,
      budgetFinal: info.tfinal,
      budgetEvery: info.deltaT,
      sensitivityDecay: info.beta1,
      uncertaintyDecay: info.beta2,
      orthogonality: info.orth_reg_weight,
    };
    const steps = info.total_step;
    const places: Places = new Map(layers.map((l) => [l, need(tensors, `adalora.${l}.W`).shape as unknown as Place]));
    const fields = method.fields([1, 1], 1, c);
    const start: PerModule<Params> = {
      unet: Object.fromEntries(
        layers.map((l) => {
          const at = `adalora.${name}.init.${l}`;
          const E = host(`${at}.E`);
          const p = { A: f64(swapped(host(`${at}.A`))), E: f64({ data: E.data, shape: [E.data.length] }), B: f64(swapped(host(`${at}.B`))) }; // biome-ignore format: one line
          const none = mapOf(p, (t) => f64({ data: new Float64Array(t.shape.reduce((n, s) => n * s, 1)), shape: t.shape })); // biome-ignore format: one line
          const ones = f64({ data: new Float64Array(info.init_r).fill(1), shape: [info.init_r] });
          return [l, { ...p, ipt: none, unc: none, left: ones, own: ones }];
        }),
      ),
      text: {},
    };
    let state = evaluate(mapModules((p: Params) => slotOf(p, fields, info.init_r), start) as never, cpu) as State;
    const ranks = { unet: Object.fromEntries(layers.map((l) => [l, info.init_r])), text: {} };
    const losses: number[] = [];
    const budgets = {
      first: info.init_budget,
      last: info.target_budget,
      warmup: info.tinit,
      final: info.tfinal,
      steps,
    };
    for (let k = 0; k < steps; k++) {
      expect(budgetAt(k, budgets)).toBe(info.budget[k]);
      const loss = lossOf(c, plain(`adalora.${name}.x`, k), plain(`adalora.${name}.y`, k));
      const params = mapModules(({ p }) => p, state);
      const [value, g] = valueAndGrad(loss as never)(params as never) as unknown as [Tensor, PerModule<Params>];
      losses.push((await numbers(value))[0]!);
      const next = updater(runner(method, c))(state, g, hyperAt(info.lr, k + 1, steps));
      state = evaluate(next.state as never, cpu) as State;
      if (method.growth!.due(c, k + 1, steps)) {
        const look = async () => {
          const out: Record<string, number[]> = {};
          for (const l of layers) out[l] = await numbers(method.growth!.look!(state.unet[l]!.p, c) as Tensor);
          return { unet: out, text: {} };
        };
        const passes = { update: () => undefined, look: () => look };
        const now = { step: k + 1, steps, key: [0, 0], places: { unet: places, text: new Map() }, ranks, room: mapModules(() => info.init_r, ranks), memories: {} }; // biome-ignore format: one line
        const { install, decisions } = await method.growth!.test(passes as never, now as never, c)();
        expect(decisions.map((d) => d.rankAfter)).toEqual(info.nonzero_E[k]);
        const wide: Record<string, { readonly left: Tensor }> = {};
        for (const [l, x] of Object.entries((install!(now.room) as PerModule<{ readonly left: Tensor }>).unet))
          wide[l] = { left: tensor(await numbers(x.left), x.left.shape, 'f64') };
        state = evaluate(mapModules((slot, p) => method.growth!.install(slot, wide[p]! as never, c), state) as never, cpu) as State; // biome-ignore format: one line
      }
      const last = k === steps - 1;
      if (name === 'b' || last)
        for (const l of layers) {
          const at = (field: string) =>
            name === 'b' ? host(`adalora.b.${field}`, k) : host(`adalora.a.${field}.last`);
          const { p } = state.unet[l]!;
          const E = await numbers(p.E as Tensor);
          expect(E.filter((x) => x !== 0).length).toBe(info.nonzero_E[k]![layers.indexOf(l)]);
          close(E, at(`${l}.E`).data, 1e-11, `step ${k} ${l}.E`);
          for (const side of ['A', 'B'] as const)
            close(await numbers(p[side] as Tensor), swapped(at(`${l}.${side}`)).data, 1e-11, `step ${k} ${l}.${side}`);
          if (name !== 'b' || k >= steps - info.tfinal) continue;
          for (const kept of ['ipt', 'unc'] as const) {
            const own = p[kept] as unknown as Record<'A' | 'E' | 'B', Tensor>;
            close(await numbers(own.E), at(`${kept}.${l}.E`).data, 1e-11, `step ${k} ${kept} ${l}.E`);
            for (const side of ['A', 'B'] as const)
              close(await numbers(own[side]), swapped(at(`${kept}.${l}.${side}`)).data, 1e-11, `step ${k} ${kept} ${l}.${side}`); // biome-ignore format: one line
          }
        }
    }
    close(losses, info.losses_with_penalty, 1e-11, 'losses');
  });
});
const mapOf = <K extends string>(record: Readonly<Record<K, Tensor>>, f: (t: Tensor) => Tensor): Record<K, Tensor> =>
  Object.fromEntries(Object.entries<Tensor>(record).map(([k, t]) => [k, f(t)])) as Record<K, Tensor>;

describe('DyLoRA', () => {
  const method = dylora as unknown as Method;
  test.each([
    ['kohya_unit1', 'block'],
    ['kohya_unit2', 'block'],
    ['paper_all', 'prefix'],
    ['paper_frozen', 'prefix-last'],
  ])('%s: outputs and gradients at every rank, and eight steps', async (name, dyForm) => {
    const info = json.dylora.cases[name]!;
    const { rank, alpha, unit = 1, lr } = info;
    const c = settingsOf(method, { rank, dyForm, dyUnit: unit, scale: alpha / rank });
    const fields = method.fields([1, 1], 1, c);
    const frozen = { weight: plain('dylora.W'), bias: plain('dylora.bias') };
    const [x, y] = [plain('dylora.x'), plain('dylora.y')];
    const index = f64({ data: Array.from({ length: rank }, (_, i) => i + 1), shape: [rank] });
    const at = (drawn: number): Params => ({
      A: f64(swapped(host('dylora.A'))),
      B: f64(swapped(host('dylora.B'))),
      index,
      drawn: f64({ data: [drawn], shape: [] }),
    });
    const out = (p: Params) => linear(method.attach(frozen, p, c) as never, x);
    const loss = (p: Params) => mean(square(sub(out(p), y)));
    // the reference names a block by its first rank, a prefix by its length
    const drawnOf = (b: number) => (dyForm === 'block' ? b + unit : b);
    for (const key of [...tensors.keys()]) {
      const found = key.match(new RegExp(`^dylora\\.${name}\\.b(\\d+)\\.out$`));
      if (!found) continue;
      const p = at(drawnOf(Number(found[1])));
      close(await numbers(out(p)), host(key).data, 1e-12, key);
      const g = (grad(loss as never) as (p: Params) => Params)(p);
      const moves = await numbers(method.moved!(p, c));
      const [gA, gB] = [await numbers(g.A as Tensor), await numbers(g.B as Tensor)];
      const outputs = gB.length / rank;
      close(gA.map((v, i) => v * moves[i % rank]!), swapped(host(key.replace('out', 'grad.A'))).data, 1e-12, `${key} A`); // biome-ignore format: one line
      close(gB.map((v, i) => v * moves[Math.floor(i / outputs)]!), swapped(host(key.replace('out', 'grad.B'))).data, 1e-12, `${key} B`); // biome-ignore format: one line
    }
    const drawn = (info.n_used ?? info.b!).map(drawnOf);
    let state: State = { unet: { m: slotOf(at(drawn[0]!), fields, rank) }, text: {} };
    for (const [k, b] of drawn.entries()) {
      const slot = state.unet.m!;
      const p: Params = { ...slot.p, drawn: f64({ data: [b], shape: [] }) };
      const [value, g] = valueAndGrad(loss as never)(p as never) as unknown as [Tensor, Params];
      close(await numbers(value), [info.losses[k]!], 1e-11, `loss ${k}`);
      const next = updater(runner(method, c))({ unet: { m: { ...slot, p } }, text: {} }, { unet: { m: g }, text: {} }, hyperAt(lr, k + 1, 8)); // biome-ignore format: one line
      state = evaluate(next.state as never, cpu) as State;
      for (const side of ['A', 'B'] as const)
        close(await numbers(state.unet.m!.p[side] as Tensor), swapped(host(`dylora.${name}.steps.${side}`, k)).data, 1e-11, `step ${k} ${side}`); // biome-ignore format: one line
    }
  });

  test('draws every rank about equally often, one for all modules, in multiples of the unit', async () => {
    for (const dyUnit of [1, 2]) {
      const c = settingsOf(method, { rank: 6, dyUnit });
      const { unet } = { unet: method.init(new Map([['m', [3, 2]]]), { m: 6 }, [1, 2], c) };
      const slot = slotOf(unet.m!, method.fields([1, 1], 1, c), 6);
      const seen = new Map<number, number>();
      for (let step = 0; step < 300; step++) {
        const shared = tensor(Uint32Array.of(step, 77));
        const drawn = async (key: number) =>
          (await numbers(method.after!(slot, slot.p, { ...made(step, 300), shared, key: tensor(Uint32Array.of(key, 1)), rate: tensor(0) }, c).p.drawn as Tensor))[0]!; // biome-ignore format: one line
        const b = await drawn(1);
        if (step < 5) expect(await drawn(2)).toBe(b);
        seen.set(b, (seen.get(b) ?? 0) + 1);
      }
      const wanted = Array.from({ length: 6 / dyUnit }, (_, i) => (i + 1) * dyUnit);
      expect([...seen.keys()].sort((p, q) => p - q)).toEqual(wanted);
      // 300 draws of n equally likely values: five standard deviations
      const share = 300 / wanted.length;
      for (const n of seen.values()) expect(Math.abs(n - share)).toBeLessThan(5 * Math.sqrt(share));
    }
  });
});
