/** A method that keeps fields and uses every hook but growth, with its programs on tiny networks, and its gradients written out. */
import { expect } from 'vitest';
import {
  abs,
  add,
  asFloat,
  cast,
  cpuBackend,
  evaluate,
  grad,
  mean,
  mul,
  read,
  reshape,
  square,
  sub,
  sum,
  type Tensor,
  tensor,
  uniform,
} from '../../core/index.ts';
import { textEncoder } from '../../models/clip/text-encoder.ts';
import { unet } from '../../models/unet/index.ts';
import { updateModules } from '../../selora/attach.ts';
import { Field, type Method } from '../../selora/methods/method.ts';
import { adamDefaults } from '../../train/optimise/optimizer.ts';
import { slotOf } from '../../train/step/ranks.ts';
import { createSteps, hyperOf, mapModules, type PerModule, type State, type Steps } from '../../train/step/step.ts';
import { rng } from './gradcheck.ts';
import { type batch, configs, frozen, linears, rate } from './step-fixture.ts';

export const cpu = cpuBackend();
export const base = { f32: frozen('f32'), f64: frozen('f64') };
export const LR = 1e-2;
export const list = async (t: Tensor): Promise<number[]> => Array.from(await read(evaluate(t, cpu)));
export const close = (got: readonly number[], want: readonly number[], by: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  const size = Math.max(1e-30, ...want.map(Math.abs));
  expect(Math.max(...want.map((w, i) => Math.abs(got[i]! - w))) / size, what).toBeLessThanOrEqual(by);
};

/** W ⊙ (1 + d ⊙ mask + u) by outputs; mask, a running mean of |∂d| and a draw are kept */
export type P = {
  readonly d: Tensor;
  readonly own: { readonly u: Tensor; readonly mask: Tensor; readonly seen: Tensor; readonly draw: Tensor };
};
type Sums<T> = { readonly mean: T; readonly square: T; readonly d: T };
export const toy: Method<P, { readonly weight?: number }, { readonly x: Tensor }, Sums<Tensor>, Sums<Float32Array>> = {
  name: 'toy',
  doc: 'a factor for every output, under a mask',
  source: 'this test',
  settings: {},
  facts: () => ({ lambda: null, testEvery: null, scale: 1, initA: 0 }),
  leastRank: () => 1,
  ranks: (_c, places) => ({
    unet: Object.fromEntries([...places.unet.keys()].map((path) => [path, 1])),
    text: Object.fromEntries([...places.text.keys()].map((path) => [path, 1])),
  }),
  room: () => 1,
  fields: ([dOut]) => {
    const kept = new Field([dOut], null, false);
    return { d: new Field([dOut]), own: { u: new Field([dOut]), mask: kept, seen: kept, draw: kept } };
  },
  init: () => ({}),
  attach: (module, { d, own: { u, mask } }) => ({
    ...module,
    weight: mul(asFloat(module.weight), reshape(add(add(1, mul(d, mask)), u), [d.shape[0]!, 1])),
  }),
  penalty: (modules, { weight = 0 }) => modules.map(({ d }) => mul(sum(square(d)), weight)).reduce((x, y) => add(x, y)),
  rates: () => ({ d: 0.5, 'own.u': 0.25 }),
  after: (slot, g, { step, key }) => {
    const { d, own } = slot.p;
    const mask = sub(1, own.mask);
    const seen = add(mul(own.seen, 0.5), mul(abs(g.d), 0.5));
    // the step's number as a part of the draw shows that it arrives
    const draw = cast(add(uniform(key, own.draw.shape), step), own.draw.dtype);
    return { ...slot, p: { d, own: { ...own, mask, seen, draw } } };
  },
  growth: {
    due: () => true,
    count: (_c, n) => n,
    trial: () => ({ x: new Field([1]) }),
    place: (p) => p,
    settle: (g) => g,
    measure: () => ({
      samples: (g) => mean(square(g.d), 0),
      scores: (g, kept, p) => ({ mean: g.d, square: kept as Tensor, d: p.d }),
    }),
    install: (slot) => slot,
    test: () => () => Promise.reject(new Error('not asked here')),
    memory: undefined as never,
  },
  toFile: () => undefined,
  fromFile: () => {
    throw new Error('not asked here');
  },
};

export const trees = (dtype: 'f32' | 'f64'): PerModule<P> => {
  const random = rng(41);
  const draw = (n: number, size: number) =>
    tensor(
      Array.from({ length: n }, () => Math.fround((random() * 2 - 1) * size)),
      [n],
      dtype,
    );
  return mapModules(
    ([n]: readonly [number, number]): P => ({
      d: draw(n, 0.2),
      own: {
        u: draw(n, 0.2),
        mask: tensor(
          Array.from({ length: n }, (_, i) => 1 - (i % 2)),
          [n],
          dtype,
        ),
        seen: draw(n, 1),
        draw: tensor(new Float32Array(n), [n], dtype),
      },
    }),
    { unet: Object.fromEntries(linears.unet), text: Object.fromEntries(linears.text) },
  );
};
const fields = toy.fields([1, 1], 1, {});
export const fresh = (dtype: 'f32' | 'f64'): State<P> =>
  evaluate(
    mapModules((p: P) => slotOf(p, fields, 1), trees(dtype)),
    cpu,
  );
const made = new Map<string, Steps<P, { readonly x: Tensor }, Sums<Tensor>, Sums<Float32Array>>>();
export const programs = (given: { readonly weight?: number; readonly clip?: number } = {}) => {
  const name = JSON.stringify(given);
  if (!made.has(name)) made.set(name, programsOf(given));
  return made.get(name)!;
};
const programsOf = (given: { readonly weight?: number; readonly clip?: number }) =>
  createSteps({
    backend: cpu,
    configs,
    method: toy,
    settings: given,
    adam: adamDefaults,
    clip: given.clip ?? 0,
    checkpointBlocks: false,
  });
export const hyper = (dtype: 'f32' | 'f64', step = 1, seed = 9) => ({ ...hyperOf(toy, { unet: LR, text: LR }, seed, step, 100), ...rate(LR, dtype) }); // biome-ignore format: one line

/** gradients of the mean loss, from the layers themselves and nothing of train/step */
export function wanted(b: ReturnType<typeof batch>): PerModule<{ readonly d: Tensor; readonly u: Tensor }> {
  const all = trees('f64');
  type Moved = PerModule<{ readonly d: Tensor; readonly u: Tensor }>;
  const loss = (moved: Moved): Tensor => {
    const net = (n: 'unet' | 'text') =>
      updateModules(base.f64[n] as never, moved[n], ({ weight, ...rest }, { d, u }, path) => {
        const factor = add(add(1, mul(d, all[n][path]!.own.mask)), u);
        return { ...rest, weight: mul(weight, reshape(factor, [factor.shape[0]!, 1])) };
      });
    const context = textEncoder(net('text'), configs.text, b.ids).lastHiddenState;
    const e = sub(unet(net('unet'), configs.unet, b.x, b.t, context), b.target);
    return mean(mul(mean(mul(e, e), [1, 2, 3]), b.weight));
  };
  return evaluate(grad(loss)(mapModules(({ d, own: { u } }: P) => ({ d, u }), all)) as never, cpu);
}
