/** ElaLoRA: who loses and who gets, by hand; a change in f64 with plain loops; the loop where ranks get fewer. */
import { describe, expect, test } from 'vitest';
import { evaluate, readScalar, type Tensor, tensor } from '../../../core/index.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { elalora, movesAt, movesOf } from '../../../selora/methods/elalora.ts';
import type { Method, Params, Place, Places, Slot } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import type { PerModule } from '../../../selora/networks.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { testedStep } from '../../../train/step/growth.ts';
import { padState, slotOf, startState } from '../../../train/step/ranks.ts';
import { createSteps, hyperOf, mapModules, type State } from '../../../train/step/step.ts';
import { cpu, numbers, rng } from '../../support/gradcheck.ts';
import { layer, places as layers, outputs, weightOf } from '../../support/method-layers.ts';
import { batch, configs, frozen, linears } from '../../support/step-fixture.ts';

const method = elalora as unknown as Method;

test('how many move: all at first, fewer by the cube of progress, none at the end', () => {
  const when = { first: 8, warmup: 10, final: 20, steps: 50 };
  // 8·(1 − (1/2)³) = 7, 8·(1 − (3/4)³) = 4.625
  expect([0, 10, 20, 25, 30, 50].map((k) => movesAt(k, when))).toEqual([8, 8, 7, 5, 0, 0]);
});

describe('who loses and who gets', () => {
  const most = [9, 9, 9];
  test('the least of what is shown is lost, the module of the most important of it grows', () => {
    // shown are 1 2 | 5 6 | 3 4: lost are 1 and 2, given for 6 and 5
    expect(movesOf([[9, 1, 2], [5, 7, 6], [4, 8, 3]], 2, 2, most)).toEqual({ lost: [[1, 2], [], []], given: [0, 2, 0] }); // biome-ignore format: one line
    expect(movesOf([[9, 1, 2], [5, 7, 6], [4, 8, 3]], 1, 2, most)).toEqual({ lost: [[1], [], []], given: [0, 1, 0] }); // biome-ignore format: one line
  });
  test('a module keeps one rank; a full one leaves its place to the next; no more than half of what is shown', () => {
    expect(movesOf([[1], [5, 6], [2, 3]], 1, 2, most)).toEqual({ lost: [[], [], [0]], given: [0, 1, 0] });
    expect(movesOf([[1, 9, 9], [5, 6, 7], [3, 4, 9]], 1, 2, [9, 3, 9])).toEqual({ lost: [[0], [], []], given: [1, 0, 0] }); // biome-ignore format: one line
    const { lost, given } = movesOf([[1, 2, 3], [4, 5, 6]], 100, 2, most); // biome-ignore format: one line
    expect([lost.flat().length, given]).toEqual([2, [0, 2]]);
  });
  test('for any scores the sum of ranks stays, none below one or above its room', () => {
    const random = rng(4);
    for (let k = 0; k < 200; k++) {
      const scores = Array.from({ length: 1 + Math.floor(random() * 6) }, () =>
        Array.from({ length: 1 + Math.floor(random() * 5) }, () => (random() < 0.3 ? 0 : random())),
      );
      const full = scores.map((of) => of.length + Math.floor(random() * 2));
      const { lost, given } = movesOf(scores, Math.floor(random() * 5), 1 + Math.floor(random() * 3), full);
      const after = scores.map((of, i) => of.length - lost[i]!.length + given[i]!);
      const total = (of: readonly number[]) => of.reduce((a, b) => a + b, 0);
      expect(total(after)).toBe(total(scores.map((of) => of.length)));
      for (const [i, r] of after.entries()) expect(r >= 1 && r <= full[i]!).toBe(true);
    }
  });
});

test('a change in f64: what stays keeps values, moments and ages; new ranks are apart from it, with E = 0', async () => {
  const c = settingsOf(method, { rank: 3, budgetWarmup: 0, budgetEvery: 1, budgetFinal: 0, moveRanks: 2 });
  const own: Places = new Map<string, Place>([...layers].slice(0, 2));
  const all = { unet: own, text: new Map() };
  const fields = method.fields([1, 1], 1, c);
  const random = rng(6);
  const values = (shape: readonly number[]) =>
    tensor(Array.from({ length: shape.reduce((n, s) => n * s, 1) }, () => random() * 2 - 1), shape, 'f64'); // biome-ignore format: one line
  const triplet = ([dOut, dIn]: Place) => ({ A: values([dIn!, 3]), E: values([3]), B: values([3, dOut]) });
  const slots = Object.fromEntries(
    [...own].map(([path, place]) => {
      const p = { ...triplet(place), ipt: triplet(place), unc: triplet(place), own: tensor([1, 1, 1], [3], 'f64') };
      const slot = slotOf(p as never, fields, 8) as Slot;
      const wide = slotOf({ ...p, ...triplet(place) } as never, fields, 8) as Slot;
      const moment = (of: Slot) => ({ ...slot.m, A: of.p.A!, E: of.p.E!, B: of.p.B! });
      return [path, { ...slot, m: moment(wide), v: moment(slot), age: tensor([5, 6, 7, 8, 8, 8, 8, 8], [8], 'f64') }];
    }),
  );
  let state = evaluate({ unet: slots, text: {} } as never, cpu) as State;
  // shown are the two least of each: of `wide` 1 and 2, of `tall` 5 and 6; both of the first are lost, `tall` gets two
  const scores = { wide: [9, 1, 2], tall: [5, 7, 6] };
  const look = async () => ({ unet: scores, text: {} });
  const ranks = { unet: { wide: 3, tall: 3 }, text: {} };
  const now = {
    step: 2,
    steps: 1000,
    key: hostKey(2),
    places: all,
    ranks,
    room: { unet: { wide: 8, tall: 8 }, text: {} },
    memories: {},
  };
  const outcome = await method.growth!.test({ update: () => undefined, look: () => look } as never, now as never, c)();
  expect(outcome.ranks.unet).toEqual({ wide: 1, tall: 5 });
  const x = outcome.install!(now.room) as PerModule<Record<string, Tensor>>;
  const wide: Record<string, Record<string, Tensor>> = {};
  for (const [path, of] of Object.entries(x.unet)) {
    wide[path] = {};
    for (const [name, t] of Object.entries(of)) wide[path][name] = tensor(await numbers(t), t.shape, 'f64');
  }
  const before = state;
  const plain = (path: string) => layer(path, weightOf(path), 'f64');
  const computed = (path: string) => outputs(path, method.attach(plain(path), state.unet[path]!.p, c), 'f64');
  const tall = await computed('tall');
  state = evaluate(mapModules((slot: Slot, path) => method.growth!.install(slot, wide[path] as never, c), state) as never, cpu) as State; // biome-ignore format: one line
  // a module that only gets ranks computes what it did
  expect((await computed('tall')).map((v, i) => Math.abs(v - tall[i]!) < 1e-14).every(Boolean)).toBe(true);
  const read = async (t: unknown) => numbers(t as Tensor);
  const column = (flat: readonly number[], r: number) => flat.filter((_, i) => i % 8 === r);
  const stay = { wide: [0], tall: [0, 1, 2] };
  for (const path of ['wide', 'tall'] as const) {
    const [was, is] = [before.unet[path]!, state.unet[path]!];
    for (const [tree, old] of [
      [is.p, was.p],
      [is.m, was.m],
      [is.v, was.v],
      [is.p.ipt, was.p.ipt],
      [is.p.unc, was.p.unc],
    ] as unknown as [Params, Params][]) {
      // biome-ignore format: one line
      const [A, A0] = [await read(tree.A), await read(old.A)];
      const [E, E0] = [await read(tree.E), await read(old.E)];
      const [B, B0] = [await read(tree.B), await read(old.B)];
      const dOut = B.length / 8;
      for (const [to, from] of stay[path].entries()) {
        expect(column(A, to)).toEqual(column(A0, from));
        expect(E[to]).toBe(E0[from]);
        expect(B.slice(to * dOut, (to + 1) * dOut)).toEqual(B0.slice(from * dOut, (from + 1) * dOut));
      }
      if (tree === is.p) continue;
      for (let r = stay[path].length; r < 8; r++) expect([...column(A, r), E[r], ...B.slice(r * dOut, (r + 1) * dOut)].every((v) => v === 0)).toBe(true); // biome-ignore format: one line
    }
    const count = outcome.ranks.unet[path]!;
    expect(await read(is.p.own)).toEqual(Array.from({ length: 8 }, (_, r) => (r < count ? 1 : 0)));
    const ages = [5, 6, 7];
    expect((await read(is.age)).slice(0, count)).toEqual(Array.from({ length: count }, (_, r) => (r < stay[path].length ? ages[stay[path][r]!] : 0))); // biome-ignore format: one line
    expect((await read(is.p.E)).slice(stay[path].length)).toEqual(new Array(8 - stay[path].length).fill(0));
    // x − A·(Aᵀx), one after the other, each of length 1
    const A = await read(is.p.A);
    const draws = await read(wide[path]!.a);
    const columns = stay[path].map((_, r) => column(A, r));
    for (let j = 0; j < count - stay[path].length; j++) {
      const drawn = draws.filter((_, i) => i % 2 === j);
      const rest = [...drawn];
      for (const a of columns) {
        const along = a.reduce((s, v, i) => s + v * drawn[i]!, 0);
        for (let i = 0; i < rest.length; i++) rest[i]! -= along * a[i]!;
      }
      const length = Math.hypot(...rest) + 1e-6;
      const got = column(A, stay[path].length + j);
      for (const [i, v] of rest.entries()) expect(Math.abs(got[i]! - v / length)).toBeLessThan(1e-12);
      columns.push(got);
    }
  }
});

test('in the loop: a network whose ranks get fewer keeps its room, and the step after it runs', async () => {
  const settings = settingsOf(method, { rank: 2, budgetWarmup: 0, budgetEvery: 1, budgetFinal: 0, moveRanks: 2 });
  const places = { unet: new Map([...linears.unet].filter(([p]) => p.endsWith('attn1.to_q')).slice(0, 2)), text: new Map([...linears.text].slice(0, 1)) }; // biome-ignore format: one line
  const programs = createSteps({ backend: cpu, configs, method, settings, adam: adamDefaults, clip: 1, checkpointBlocks: false }); // biome-ignore format: one line
  const base = frozen('f32');
  const parts = { method, settings, seed: 3, places, programs, frozen: base, backend: cpu };
  const start = startState(parts, places, cpu);
  // as after a module that had five ranks and lost them
  const state = padState(
    parts,
    start.state,
    mapModules(() => 8, start.ranks),
    cpu,
  );
  let now = { state, ranks: start.ranks, memories: {} as Record<string, unknown> };
  for (const step of [2, 3]) {
    const hyper = hyperOf(method, { unet: 1e-2, text: 1e-2 }, 3, step, 9);
    const t = await testedStep(parts, now as never, [batch(2, 5, 'f32')], [], hyper, step, 9);
    expect(Number.isFinite(await readScalar(t.loss))).toBe(true);
    const next = await t.decide();
    expect(
      Object.values(next.ranks.unet)
        .concat(Object.values(next.ranks.text))
        .reduce((a, b) => a + b, 0),
    ).toBe(6);
    for (const slot of Object.values({ ...next.state.unet, ...next.state.text })) expect(slot.age.shape).toEqual([8]);
    now = next as never;
  }
});
