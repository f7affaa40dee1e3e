/** The update of a step on a fast backend: its numbers against plain ones, and what its program does once for a module. */
import { afterAll, expect, test } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { type Backend, compile, read, type Tensor, tensor } from '../../../core/index.ts';
import type { Adapter } from '../../../selora/adapter.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { mapModules, type PerModule, type Slot, type State } from '../../../train/step/state.ts';
import { updater } from '../../../train/step/update.ts';
import { rng } from '../../support/gradcheck.ts';

const wasm = wasmBackend({ threads: 1 });
afterAll(() => wasm.close());

const RATES = { unet: 0.02, text: 0.005 };
/** more than a float holds of a sum of some dozens of numbers, less than another age or factor would change */
const CLOSE = 2e-5;
const CLIP = 0.5;
/** rank 0 is old, rank 2 was never updated */
const AGES = [900, 3, 0];
const places = { unet: { a: [6, 5], b: [6, 5], c: [4, 9] }, text: { a: [6, 5] } } as const;

const draw = rng(17);
const drawn = (shape: readonly number[], least = -1): Tensor =>
  tensor(
    Float32Array.from({ length: shape.reduce((n, side) => n * side, 1) }, () => least + draw() * (1 - least)),
    shape,
  );
const pair = ([inputs, outputs]: readonly [number, number], least?: number): Adapter => ({
  A: drawn([inputs, AGES.length], least),
  B: drawn([AGES.length, outputs], least),
});
const state: State<Adapter> = mapModules(
  (place: readonly [number, number]): Slot<Adapter> => ({
    p: pair(place),
    m: pair(place),
    // sums of squares
    v: pair(place, 0),
    age: tensor(Float32Array.from(AGES)),
  }),
  places,
);
const gradients: PerModule<Adapter> = mapModules((place: readonly [number, number]) => pair(place), places);

const program = (backend: Backend) => {
  const update = updater({ method: selora, settings: settingsOf(selora), adam: adamDefaults, clip: CLIP });
  const hyper = { unet: tensor(RATES.unet), text: tensor(RATES.text) };
  const compiled = compile((s: State<Adapter>, g: PerModule<Adapter>) => update(s, g, hyper), { backend });
  return { run: () => compiled(state, gradients), kernels: () => compiled.inspect(state, gradients).kernels };
};
const numbers = async (t: Tensor) => Array.from(await read(t));

test('every number moves by its own rank’s age and its network’s rate, by gradients clipped together', async () => {
  const { state: next, norm } = program(wasm).run();
  const sides = (['unet', 'text'] as const).flatMap((n) =>
    Object.keys(places[n]).flatMap((path) => (['A', 'B'] as const).map((side) => [n, path, side] as const)),
  );
  const all = await Promise.all(sides.map(([n, path, side]) => numbers(gradients[n][path]![side])));
  const length = Math.hypot(...all.flat());
  expect((await numbers(norm))[0]! / length).toBeCloseTo(1, 6);
  expect(length).toBeGreaterThan(2 * CLIP);
  for (const [i, [n, path, side]] of sides.entries()) {
    const [before, after] = [state[n][path]!, next[n][path]!];
    const [p, m, v] = await Promise.all([before.p[side], before.m[side], before.v[side]].map(numbers));
    const got = await Promise.all([after.p[side], after.m[side], after.v[side]].map(numbers));
    for (let k = 0; k < p!.length; k++) {
      const rank = side === 'A' ? k % AGES.length : Math.floor(k / (p!.length / AGES.length));
      const t = AGES[rank]! + 1;
      const g = (all[i]![k]! * CLIP) / length;
      const m1 = 0.9 * m![k]! + 0.1 * g;
      const v1 = 0.999 * v![k]! + 0.001 * g * g;
      const p1 = p![k]! - (RATES[n] * (m1 / (1 - 0.9 ** t))) / (Math.sqrt(v1 / (1 - 0.999 ** t)) + 1e-8);
      for (const [w, want] of [p1, m1, v1].entries())
        expect(Math.abs(got[w]![k]! - want), `${n} ${path} ${side} ${k}`).toBeLessThan(CLOSE * (1 + Math.abs(want)));
    }
    expect(await numbers(after.age)).toEqual(AGES.map((x) => x + 1));
  }
});

test('a module’s ages and what corrects its moments are one kernel, each of its leaves another', () => {
  const modules = 4;
  const all = program(wasm).kernels();
  const made = all.filter(({ name, detail }) => name === 'elementwise' && !detail.startsWith('[]'));
  expect(made.filter(({ detail }) => detail.includes('tanh')).length).toBe(modules);
  expect(made.length).toBe(3 * modules);
});
