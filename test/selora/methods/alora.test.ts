/** ALoRA: who loses and gets by hand, what a rank is worth by ablation and to first order, both against the model's own losses in f64. */
import { describe, expect, test } from 'vitest';
import { evaluate, type Tensor, tensor } from '../../../core/index.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { allocationOf, alora } from '../../../selora/methods/alora.ts';
import type { Method, Params, Place, Slot } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import type { PerModule } from '../../../selora/networks.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { slotOf } from '../../../train/step/ranks.ts';
import { createSteps, mapModules, paramsOf, type State } from '../../../train/step/step.ts';
import { cpu, numbers, rng } from '../../support/gradcheck.ts';
import { adapters, batch, configs, frozen, linears } from '../../support/step-fixture.ts';

const method = alora as unknown as Method;
const total = (of: readonly number[]) => of.reduce((a, b) => a + b, 0);

describe('who loses and who gets', () => {
  test('the ranks worth least are lost; modules that lost none get as many, the worthiest first', () => {
    expect(allocationOf([[5, 1], [2, 9], [6, 7], [4, 4]], 2, [9, 9, 9, 9])).toEqual({ lost: [[1], [0], [], []], given: [0, 0, 1, 1] }); // biome-ignore format: one line
    expect(allocationOf([[1, 2, 3], [8, 9], [6, 7]], 3, [9, 9, 9])).toEqual({ lost: [[0, 1, 2], [], []], given: [0, 2, 1] }); // biome-ignore format: one line
    expect(
      allocationOf(
        [
          [-3, 5],
          [2, 4],
        ],
        1,
        [9, 9],
      ),
    ).toEqual({ lost: [[0], []], given: [0, 1] });
  });
  test('where each lost some, all may get; a full module is passed over; fewer move where there is no room', () => {
    expect(
      allocationOf(
        [
          [1, 9],
          [2, 8],
        ],
        2,
        [9, 9],
      ),
    ).toEqual({ lost: [[0], [0]], given: [1, 1] });
    expect(
      allocationOf(
        [
          [1, 2],
          [8, 9],
          [6, 7],
        ],
        2,
        [9, 2, 9],
      ),
    ).toEqual({ lost: [[0, 1], [], []], given: [0, 0, 2] });
    expect(
      allocationOf(
        [
          [1, 2],
          [8, 9],
        ],
        2,
        [9, 3],
      ),
    ).toEqual({ lost: [[0], []], given: [0, 1] });
    expect(allocationOf([[], [8, 9]], 1, [9, 9])).toEqual({ lost: [[], [0]], given: [1, 0] });
  });
  test('for any scores the sum of ranks stays, and none is above its room', () => {
    const random = rng(3);
    for (let k = 0; k < 200; k++) {
      const scores = Array.from({ length: 1 + Math.floor(random() * 5) }, () => Array.from({ length: Math.floor(random() * 5) }, () => random() - 0.5)); // biome-ignore format: one line
      const most = scores.map((of) => of.length + Math.floor(random() * 3));
      const { lost, given } = allocationOf(scores, Math.floor(random() * 6), most);
      const after = scores.map((of, i) => of.length - lost[i]!.length + given[i]!);
      expect(total(after)).toBe(total(scores.map((of) => of.length)));
      for (const [i, r] of after.entries()) expect(r >= 0 && r <= most[i]!).toBe(true);
    }
  });
});

/** two modules of the tiny U-Net at rank 2 with room for 4, in f64, B not zero */
function tiny(given: object = {}) {
  const settings = settingsOf(method, { rank: 2, scale: 0.7, budgetWarmup: 0, budgetEvery: 1, budgetFinal: 0, moveRanks: 1, ...given }); // biome-ignore format: one line
  const paths = [...linears.unet.keys()].filter((p) => /attn[12]\.to_v$/.test(p)).slice(0, 2);
  const all = adapters(2, 'f64').unet;
  const own = { unet: Object.fromEntries(paths.map((p) => [p, all[p]!])), text: {} };
  const fields = method.fields([1, 1], 1, settings);
  const state = evaluate(mapModules((p) => slotOf(p as never, fields, 4), own) as never, cpu) as State;
  const programs = createSteps({ backend: cpu, configs, method, settings, adam: adamDefaults, clip: 0, checkpointBlocks: false }); // biome-ignore format: one line
  const places = { unet: new Map(paths.map((p): [string, Place] => [p, linears.unet.get(p)!])), text: new Map() };
  return { settings, paths, state, programs, places, base: frozen('f64'), data: [batch(2, 5, 'f64')] };
}
type Tiny = ReturnType<typeof tiny>;
const gates = (paths: readonly string[], of: (path: string, r: number) => number): PerModule<{ readonly gate: Tensor }> => ({
  unet: Object.fromEntries(paths.map((p) => [p, { gate: tensor([0, 1, 2, 3].map((r) => (r < 2 ? of(p, r) : 0)), [4], 'f64') }])),
  text: {},
}); // biome-ignore format: one line
const lossAt = ({ programs, state, base, data, paths }: Tiny, of: (path: string, r: number) => number) =>
  programs.trialLoss(state, base, data, gates(paths, of) as never);
/** the passes of a step on it; the method's own gates are f32 */
const passesOf = (t: Tiny) => {
  const f64 = async (x: PerModule<{ readonly gate: Tensor }>) => {
    const out: Record<string, object> = {};
    for (const [p, { gate }] of Object.entries(x.unet)) out[p] = { gate: tensor(await numbers(gate), [4], 'f64') };
    return { unet: out, text: {} } as never;
  };
  return {
    batches: 1,
    measure: (x: never) => async () => t.programs.readSums(t.programs.scores(t.state, t.base, t.data, await f64(x))),
    loss: async (x: never) => t.programs.trialLoss(t.state, t.base, t.data, await f64(x)),
  };
};
const nowOf = (t: Tiny) => ({ step: 2, steps: 9, key: hostKey(1), places: t.places, ranks: { unet: Object.fromEntries(t.paths.map((p) => [p, 2])), text: {} }, room: { unet: Object.fromEntries(t.paths.map((p) => [p, 4])), text: {} }, memories: {} }); // biome-ignore format: one line

test('the loss with gates is that of the model with so much of each rank; all open it is the plain one', async () => {
  const t = tiny();
  const plain = await numbers(t.programs.losses(paramsOf(t.state), t.base, t.data[0]!));
  expect(await lossAt(t, () => 1)).toBeCloseTo(total(plain) / 2, 12);
  const without = mapModules((p: Params) => ({ A: p.A!, B: tensor(new Float64Array((p.B as Tensor).shape.reduce((n, s) => n * s, 1)) as never, (p.B as Tensor).shape, 'f64') }), paramsOf(t.state)); // biome-ignore format: one line
  const base = await numbers(t.programs.losses(without as never, t.base, t.data[0]!));
  expect(await lossAt(t, () => 0)).toBeCloseTo(total(base) / 2, 12);
  expect(total(base)).not.toBeCloseTo(total(plain), 6);
});

test.each(['each', 'first-order'])('what a rank is worth, %s, decides as the losses say', async (ablate) => {
  const t = tiny({ ablate });
  const outcome = await method.growth!.test(passesOf(t) as never, nowOf(t) as never, t.settings)();
  // by hand: every rank without and alone, or central differences of the loss at gates 1 and 0
  const worth: number[][] = [];
  for (const path of t.paths) {
    const own: number[] = [];
    for (const r of [0, 1]) {
      const at = (gate: number, others: number) => lossAt(t, (p, i) => (p === path && i === r ? gate : others));
      const slope = async (from: number) => ((await at(from + 1e-4, from)) - (await at(from - 1e-4, from))) / 2e-4;
      own.push(ablate === 'each' ? (await at(0, 1)) - (await at(1, 0)) : -(await slope(1)) - (await slope(0)));
    }
    worth.push(own);
  }
  const rows = outcome.decisions as unknown as readonly { readonly gain: number; readonly rankAfter: number }[];
  for (const [i, own] of worth.entries()) {
    // the mean of two: what a test logs
    expect(Math.abs(rows[i]!.gain - total(own) / 2)).toBeLessThan(1e-7 * (1 + Math.abs(total(own))));
  }
  const { lost, given } = allocationOf(worth, 1, [99, 99]);
  expect(rows.map((d) => d.rankAfter)).toEqual(worth.map((_, i) => 2 - lost[i]!.length + given[i]!));
});

test('a change: what stays keeps values, moments and ages, a new rank has B = 0 and age 0', async () => {
  const t = tiny({ ablate: 'each' });
  const outcome = await method.growth!.test(passesOf(t) as never, nowOf(t) as never, t.settings)();
  const install = outcome.install!(nowOf(t).room) as PerModule<Record<string, Tensor>>;
  const moved: Record<string, Slot> = {};
  for (const p of t.paths) {
    const slot = t.state.unet[p]!;
    const x: Record<string, Tensor> = {};
    for (const [name, of] of Object.entries(install.unet[p]!)) x[name] = tensor(await numbers(of), of.shape, 'f64');
    const old = { ...slot, m: slot.p, v: slot.p, age: tensor([4, 5, 6, 6], [4], 'f64') };
    moved[p] = evaluate(method.growth!.install(old, x as never, t.settings) as never, cpu) as Slot;
  }
  const after = Object.values(outcome.ranks.unet);
  expect(total(after)).toBe(4);
  const [loser, winner] = after[0]! < after[1]! ? t.paths : [...t.paths].reverse();
  const values = async (x: unknown) => numbers(x as Tensor);
  const column = (flat: readonly number[], r: number) => flat.filter((_, i) => i % 4 === r);
  const before = await values(t.state.unet[loser!]!.p.A);
  const [A, m, ages] = [
    await values(moved[loser!]!.p.A),
    await values(moved[loser!]!.m.A),
    await values(moved[loser!]!.age),
  ];
  const kept = [0, 1].find((r) => column(before, r).join() === column(A, 0).join())!;
  expect([0, 1]).toContain(kept);
  expect([column(m, 0), ages[0]]).toEqual([column(before, kept), 4 + kept]);
  for (const r of [1, 2, 3]) expect(column(A, r).every((v) => v === 0)).toBe(true);
  const own = moved[winner!]!;
  expect(column(await values(own.p.A), 2).every((v) => v !== 0)).toBe(true);
  const B = await values(own.p.B);
  expect(B.slice(B.length / 2).every((v) => v === 0)).toBe(true);
  expect((await values(own.age)).slice(0, 3)).toEqual([4, 5, 0]);
  expect(column(await values(own.m.A), 2).every((v) => v === 0)).toBe(true);
});
