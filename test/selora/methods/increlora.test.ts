/** IncreLoRA step by step in f64 against the authors' code (`golden/methods/rivals.*`), and what the numbers do not reach. */
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { add, evaluate, mean, square, sub, type Tensor, tanh, tensor, valueAndGrad } from '../../../core/index.ts';
import { linear } from '../../../nn/index.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { grownBy, increlora } from '../../../selora/methods/increlora.ts';
import type { Method, Params, Place, Places, Slot } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { padState, slotOf } from '../../../train/step/ranks.ts';
import { mapModules, type PerModule, type State } from '../../../train/step/step.ts';
import { updater } from '../../../train/step/update.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../../train/verify/golden.ts';
import { cpu, numbers } from '../../support/gradcheck.ts';
import { atRankTwo, layer, places as layers, outputs, weightOf } from '../../support/method-layers.ts';

const folder = path.join(import.meta.dirname, '../../golden/methods');
const list = z.array(z.number());
const schema = z.object({
  increlora: z.object({
    settings: z.object({
      init_r: z.number(),
      target_total_rank: z.number(),
      init_warmup: z.number(),
      incre_interval: z.number(),
      top_h: z.number(),
      incre_rank_num: z.number(),
      beta1: z.number(),
      beta2: z.number(),
      lora_alpha: z.number(),
      lr: z.number(),
      weight_decay: z.number(),
      orth: z.number(),
      total: z.number(),
    }),
    steps: z.array(
      z.looseObject({
        loss: z.number(),
        score: list,
        exp_avg_ipt: list,
        exp_avg_unc: list,
        ranknum: list,
        columns: list,
        total_rank: z.number(),
      }),
    ),
  }),
});
let golden: z.output<typeof schema>['increlora'];
let tensors: GoldenTensors;
beforeAll(async () => {
  golden = (await readGoldenJson(folder, 'rivals.json', schema)).increlora;
  tensors = await readGoldenTensors(path.join(folder, 'rivals.safetensors'));
});

const method = increlora as unknown as Method;
const names = ['l0', 'l1', 'l2'];
const close = (got: readonly number[], want: ArrayLike<number>, by: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  for (const [i, x] of got.entries()) expect(Math.abs(x - want[i]!), `${what} [${i}]`).toBeLessThanOrEqual(by);
};
/** a tensor of the reference, or one of a list of them */
const f64 = (name: string, at?: number): Tensor => {
  const { data, shape } = need(tensors, name);
  if (at === undefined) return tensor(Array.from(data), shape, 'f64');
  const rest = shape.slice(1);
  const size = rest.reduce((n, side) => n * side, 1);
  return tensor(Array.from(data.subarray(at * size, (at + 1) * size)), rest, 'f64');
};
/** [n, m] of the reference as rows of [m, n] */
const swapped = (name: string): number[] => {
  const { data, shape } = need(tensors, name);
  const [n, m] = shape as [number, number];
  return Array.from({ length: n * m }, (_, i) => data[(i % n) * m + Math.floor(i / n)]!);
};
const columnsOf = (flat: readonly number[], width: number, columns: number) =>
  flat.filter((_, i) => i % width < columns);

describe('IncreLoRA is the authors’', () => {
  test('losses, scores, who grows, and every value after every step', async () => {
    const info = golden.settings;
    const c = {
      ...settingsOf(method, {
        rank: info.init_r,
        targetRank: 4,
        growRanks: info.incre_rank_num,
        growModules: info.top_h,
      }),
      // of all modules together; the setting is their mean
      targetRank: info.target_total_rank / names.length,
      budgetWarmup: info.init_warmup,
      budgetFinal: 0,
      budgetEvery: info.incre_interval,
      sensitivityDecay: info.beta1,
      uncertaintyDecay: info.beta2,
      orthogonality: info.orth,
    };
    const places: Places = new Map(names.map((l) => [l, need(tensors, `adalora.${l}.W`).shape as unknown as Place]));
    const fields = method.fields([1, 1], 1, c);
    const start: PerModule<Params> = {
      unet: Object.fromEntries(
        names.map((l) => {
          const fresh = method.init(places, { l0: 1, l1: 1, l2: 1 }, hostKey(1), c)[l]!;
          const kept = Object.fromEntries(
            Object.entries(fresh).map(([name, t]) => [name, tensor(Array.from({ length: (t as Tensor).shape.reduce((n, s) => n * s, 1) }, () => (name === 'granted' || name === 'piece' ? 1 : 0)), (t as Tensor).shape, 'f64')]),
          ); // biome-ignore format: one line
          const at = `increlora.init.${l}`;
          const [dOut, dIn] = places.get(l)! as [number, number];
          return [l, { ...kept, A: tensor(swapped(`${at}.A`), [dIn, 1], 'f64'), E: tensor(swapped(`${at}.E`), [1], 'f64'), B: tensor(swapped(`${at}.B`), [1, dOut], 'f64') }]; // biome-ignore format: one line
        }),
      ),
      text: {},
    };
    const ROOM = 8;
    let ranks = { unet: Object.fromEntries(names.map((l) => [l, 1])), text: {} };
    let state = evaluate(mapModules((p: Params) => slotOf(p, fields, 4), start) as never, cpu) as State;
    state = padState(
      { method, settings: c },
      state,
      mapModules(() => ROOM, state),
      cpu,
    );
    // the authors' scale follows the rank of a module
    let granted = names.map(() => info.init_r);
    const losses: number[] = [];
    for (const [k, want] of golden.steps.entries()) {
      const [x, y] = [f64('increlora.x', k), f64('increlora.y', k)];
      const loss = (p: PerModule<Params>) => {
        let h = x;
        for (const [i, l] of names.entries()) {
          const frozen = { weight: f64(`adalora.${l}.W`), bias: f64(`adalora.${l}.b`) };
          const own = { ...c, scale: info.lora_alpha / (granted[i]! + 1e-5) };
          h = linear(method.attach(frozen, p.unet[l]!, own) as never, h);
          if (i < names.length - 1) h = tanh(h);
        }
        return add(mean(square(sub(h, y))), method.penalty!(Object.values(p.unet), c));
      };
      const params = mapModules(({ p }: Slot) => p, state);
      const [value, g] = valueAndGrad(loss as never)(params as never) as unknown as [Tensor, PerModule<Params>];
      losses.push((await numbers(value))[0]!);
      // once the target is reached the authors' scores stand still
      const growing = granted.reduce((x, y) => x + y, 0) < info.target_total_rank;
      if (growing)
        for (const [i, l] of names.entries())
          close(await numbers(g.unet[l]!.score as Tensor), [want.score[i]!], 1e-12, `step ${k} score ${l}`);
      const adam = { ...adamDefaults, weightDecay: info.weight_decay, decoupled: true };
      const hyper = { unet: tensor([info.lr], [], 'f64'), text: tensor([info.lr], [], 'f64'), made: { step: tensor(k + 1), steps: tensor(info.total), key: tensor(Uint32Array.of(1, 2)), shared: tensor(Uint32Array.of(3, 4)) } }; // biome-ignore format: one line
      state = evaluate(updater({ method, settings: c, adam, clip: 0 })(state, g, hyper).state as never, cpu) as State;
      if (growing)
        for (const [i, l] of names.entries()) {
          const { p } = state.unet[l]!;
          close(await numbers(p.ipt as Tensor), [want.exp_avg_ipt[i]!], 1e-13, `step ${k} ipt ${l}`);
          close(await numbers(p.unc as Tensor), [want.exp_avg_unc[i]!], 1e-13, `step ${k} unc ${l}`);
        }
      if (method.growth!.due(c, k + 1, info.total)) {
        const look = async () => {
          const out: Record<string, object> = {};
          for (const l of names) {
            const { score, piece } = method.growth!.look!(state.unet[l]!.p, c) as { score: Tensor; piece: Tensor };
            out[l] = { score: await numbers(score), piece: await numbers(piece) };
          }
          return { unet: out, text: {} };
        };
        const passes = { update: () => undefined, look: () => look };
        const now = { step: k + 1, steps: info.total, key: [0, 0], places: { unet: places, text: new Map() }, ranks, room: mapModules(() => ROOM, ranks), memories: {} }; // biome-ignore format: one line
        const outcome = await method.growth!.test(passes as never, now as never, c)();
        granted = outcome.decisions.map((d) => d.rankAfter);
        if (outcome.install) {
          const x = outcome.install(now.room) as PerModule<Record<string, Tensor>>;
          const drawn: Record<string, object> = {};
          for (const l of names) {
            // the authors' draws in the places of ours
            const [before, after] = [ranks.unet[l]!, outcome.ranks.unet[l]!];
            const of: Record<string, Tensor> = {};
            for (const [name, t] of Object.entries(x.unet[l]!)) of[name] = tensor(await numbers(t), t.shape, 'f64');
            const [a, b] = [swapped(`increlora.step${k}.${l}.A`), swapped(`increlora.step${k}.${l}.B`)];
            const [dIn, dOut] = [a.length / after, b.length / after];
            const place = (
              flat: readonly number[],
              at: (rank: number, i: number) => number,
              size: number,
              width: number,
            ) => {
              const out = new Float64Array(size * ROOM);
              for (let r = before; r < after; r++) for (let i = 0; i < size; i++) out[width === ROOM ? i * ROOM + r : r * size + i] = flat[at(r, i)]!; // biome-ignore format: one line
              return out;
            };
            of.A = tensor(
              place(a, (r, i) => i * after + r, dIn, ROOM),
              [dIn, ROOM],
              'f64',
            );
            of.B = tensor(
              place(b, (r, i) => r * dOut + i, dOut, dOut),
              [ROOM, dOut],
              'f64',
            );
            drawn[l] = of;
          }
          state = evaluate(mapModules((slot: Slot, l) => method.growth!.install(slot, drawn[l] as never, c), state) as never, cpu) as State; // biome-ignore format: one line
        }
        ranks = outcome.ranks as typeof ranks;
      }
      expect(granted, `step ${k}`).toEqual(want.ranknum);
      expect(Object.values(ranks.unet), `step ${k}`).toEqual(want.columns);
      for (const [i, l] of names.entries()) {
        const { p } = state.unet[l]!;
        const columns = want.columns[i]!;
        const at = `increlora.step${k}.${l}`;
        const [E, own, spare] = [await numbers(p.E as Tensor), await numbers(p.granted as Tensor), await numbers(p.spare as Tensor)]; // biome-ignore format: one line
        // the method draws its reserve in f32, where 1e-5 is no round number
        close(
          E.map((e, r) => e * own[r]! + spare[r]!).slice(0, columns),
          need(tensors, `${at}.E`).data,
          1e-11,
          `${at}.E`,
        );
        close(columnsOf(await numbers(p.A as Tensor), ROOM, columns), swapped(`${at}.A`), 1e-11, `${at}.A`);
        const B = await numbers(p.B as Tensor);
        close(B.slice(0, (B.length / ROOM) * columns), swapped(`${at}.B`), 1e-11, `${at}.B`);
      }
    }
    close(losses, golden.steps.map((s) => s.loss), 1e-11, 'losses'); // biome-ignore format: one line
    expect(granted.reduce((a, b) => a + b, 0)).toBe(info.target_total_rank);
  });
});

describe('who grows', () => {
  const c = settingsOf(method, { rank: 1, targetRank: 3 }) as Parameters<typeof grownBy>[0];
  test('as many modules as reach the target in the tests that are left, by score, the earlier of equal ones first', () => {
    // 6 ranks are missing, 3 tests are left: two modules grow
    expect(grownBy(c, [1, 5, 5], [1, 1, 1], [9, 9, 9], 3)).toEqual([false, true, true]);
    expect(grownBy(c, [5, 5, 5], [1, 1, 1], [9, 9, 9], 3)).toEqual([true, true, false]);
    // the last test gives what is missing, to at most all
    expect(grownBy(c, [1, 2, 3], [3, 3, 2], [9, 9, 9], 1)).toEqual([false, false, true]);
    expect(grownBy({ ...c, growModules: 1 }, [1, 2, 3], [1, 1, 1], [9, 9, 9], 1)).toEqual([false, false, true]);
  });
  test('a module that is full leaves its place to the next, and at the target none grows', () => {
    expect(grownBy(c, [1, 5, 4], [1, 1, 1], [9, 1, 9], 6)).toEqual([false, false, true]);
    expect(grownBy(c, [1, 5, 4], [3, 3, 3], [9, 9, 9], 1)).toEqual([false, false, false]);
  });
});

test('what becomes a rank changes nothing; its reserve is felt less than 1e-7', async () => {
  const { c, start } = atRankTwo(method, { targetRank: 8, budgetWarmup: 1, budgetEvery: 1, budgetFinal: 0 });
  const places = { unet: layers, text: new Map() };
  const fields = method.fields([1, 1], 1, c);
  let ranks = method.ranks(c, places);
  const f64Of = async (tree: object) =>
    Object.fromEntries(await Promise.all(Object.entries(tree).map(async ([name, t]: [string, Tensor]) => [name, tensor(await numbers(t), t.shape, 'f64')] as const))); // biome-ignore format: one line
  const all = async (trees: object): Promise<Record<string, Params>> =>
    Object.fromEntries(await Promise.all(Object.entries(trees).map(async ([l, p]) => [l, await f64Of(p)] as const)));
  const first = { unet: await all(start), text: {} };
  let state = evaluate(mapModules((p: Params) => slotOf(p, fields, 8), first) as never, cpu) as State;
  const look = async () => {
    const out: Record<string, object> = {};
    for (const [l, { p }] of Object.entries(state.unet)) {
      const { score, piece } = method.growth!.look!(p, c) as { score: Tensor; piece: Tensor };
      out[l] = { score: await numbers(score), piece: await numbers(piece) };
    }
    return { unet: out, text: {} };
  };
  const of = (l: string) => outputs(l, method.attach(layer(l, weightOf(l), 'f64'), state.unet[l]!.p, c), 'f64');
  for (const step of [1, 3, 4]) {
    const before = Object.fromEntries(
      await Promise.all([...layers.keys()].map(async (l) => [l, await of(l)] as const)),
    );
    const now = { step, steps: 20, key: hostKey(3), places, ranks, room: mapModules(() => 8, ranks), memories: {} };
    const outcome = await method.growth!.test(
      { update: () => undefined, look: () => look } as never,
      now as never,
      c,
    )();
    const x = await all((outcome.install!(now.room) as PerModule<object>).unet);
    state = evaluate(mapModules((slot: Slot, l) => method.growth!.install(slot, x[l] as never, c), state) as never, cpu) as State; // biome-ignore format: one line
    ranks = outcome.ranks;
    for (const l of layers.keys()) close(await of(l), before[l]!, 1e-7, `${step} ${l}`);
    // the reserve's A and B are there, so that they are trained before the rank counts
    expect(ranks.unet.wide).toBe(2 + (step === 1 ? 1 : outcome.decisions[0]!.rankAfter - 1));
  }
});

test('what is measured is neither clipped nor counted in the norm, and no update moves it', async () => {
  const { c, start } = atRankTwo(method);
  const slot = slotOf(start.wide!, method.fields([1, 1], 1, c), 2);
  const none = mapOf(slot.p, (t) => tensor(new Float32Array(t.shape.reduce((n, s) => n * s, 1)), t.shape));
  const g = { ...none, E: tensor([3, 4]), score: tensor(500, []) };
  const rate = tensor(0.1);
  const made = { step: rate, steps: rate, key: tensor(Uint32Array.of(1, 2)), shared: tensor(Uint32Array.of(3, 4)) };
  const state = { unet: { wide: slot }, text: {} };
  const next = updater({ method, settings: c, adam: adamDefaults, clip: 1 })(state, { unet: { wide: g }, text: {} }, { unet: rate, text: rate, made }); // biome-ignore format: one line
  expect(await numbers(next.norm)).toEqual([5]);
  const { p } = next.state.unet.wide!;
  expect(await numbers(p.score as Tensor)).toEqual([0]);
  close(await numbers(p.ipt as Tensor), [0.15 * 500], 1e-5, 'ipt');
});
const mapOf = (p: Params, f: (t: Tensor) => Tensor) =>
  Object.fromEntries(Object.entries(p).map(([name, t]) => [name, f(t as Tensor)]));
