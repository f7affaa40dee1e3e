/** What single methods promise beyond the laws of `every.test.ts`: rates, shared tensors, constants in gradients, invariants. */
import { Matrix } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { add, evaluate, grad, mul, sum, type Tensor, tensor, zeros } from '../../../core/index.ts';
import { linear } from '../../../nn/index.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { dora } from '../../../selora/methods/dora.ts';
import { factorization } from '../../../selora/methods/lokr.ts';
import { loraPlus } from '../../../selora/methods/lora-plus.ts';
import type { Method, Params, Places } from '../../../selora/methods/method.ts';
import { oft } from '../../../selora/methods/oft.ts';
import { methodNames, methodOf, settingsOf } from '../../../selora/methods/registry.ts';
import { rslora } from '../../../selora/methods/rslora.ts';
import { sora } from '../../../selora/methods/sora.ts';
import { tiedLora } from '../../../selora/methods/tied-lora.ts';
import { vera } from '../../../selora/methods/vera.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { slotOf } from '../../../train/step/ranks.ts';
import { mapModules, type PerModule, type State } from '../../../train/step/step.ts';
import { updater } from '../../../train/step/update.ts';
import { cpu, numbers, rng } from '../../support/gradcheck.ts';
import { atRankTwo, layer, moved, places, weightOf } from '../../support/method-layers.ts';

const random = (seed: number, shape: readonly number[], size = 1): Tensor => {
  const draw = rng(seed);
  const n = shape.reduce((a, b) => a * b, 1);
  return tensor(Array.from({ length: n }, () => (draw() * 2 - 1) * size), shape, 'f64'); // biome-ignore format: one line
};
const LR = 0.01;
const made = {
  step: tensor(1),
  steps: tensor(9),
  key: tensor(Uint32Array.of(1, 2)),
  shared: tensor(Uint32Array.of(3, 4)),
};
const hyper = { unet: tensor([LR], [], 'f64'), text: tensor([LR], [], 'f64'), made };
const run = (
  method: Method,
  settings: object,
  p: Readonly<Record<string, Params>>,
  g: Readonly<Record<string, Params>>,
  clip = 0,
) => {
  const fields = method.fields([1, 1], 1, settings as never);
  const state = mapModules((x: Params) => slotOf(x, fields, 'rank' in settings ? (settings.rank as number) : 2), {
    unet: p,
    text: {},
  });
  const gradients: PerModule<Params> = { unet: g, text: {} };
  const next = updater({ method, settings: settings as never, adam: adamDefaults, clip })(state, gradients, hyper);
  return { ...next, state: evaluate(next.state as never, cpu) as State };
};
const close = (got: readonly number[], want: readonly number[], by: number, what = '') => {
  expect(got.length, what).toBe(want.length);
  for (const [i, w] of want.entries())
    expect(Math.abs(got[i]! - w), `${what} [${i}]`).toBeLessThanOrEqual(by * (1 + Math.abs(w)));
};

test('LoRA+: Adam’s first step moves B by ratio·lr, A by lr, each against its gradient', async () => {
  const method = loraPlus as unknown as Method;
  const [p, g] = [
    { A: random(1, [5, 2]), B: random(2, [2, 3]) },
    { A: random(3, [5, 2]), B: random(4, [2, 3]) },
  ];
  const { state } = run(method, settingsOf(method, { rateRatio: 4 }), { m: p }, { m: g });
  for (const [side, rate] of [
    ['A', LR],
    ['B', 4 * LR],
  ] as const) {
    const [before, slope] = [await numbers(p[side]), await numbers(g[side])];
    close(await numbers(state.unet.m!.p[side] as Tensor), before.map((v, i) => v - (rate * slope[i]!) / (Math.abs(slope[i]!) + 1e-8)), 1e-12, side); // biome-ignore format: one line
  }
  expect(settingsOf(method).rateRatio).toBe(16);
});

test('SoRA: Adam’s step, then every gate towards zero by lr·λ, to zero at most; closed ranks leave the file', async () => {
  const method = sora as unknown as Method;
  const c = settingsOf(method, { rank: 4, gateSparsity: 3 });
  const gates = [0.5, -0.02, 0.025, -0.7];
  const p = { A: random(1, [5, 4]), B: random(2, [4, 3]), gate: tensor(gates, [4], 'f64') };
  const g = { A: random(3, [5, 4]), B: random(4, [4, 3]), gate: tensor([1, -1, 1, 2], [4], 'f64') };
  const { state } = run(method, c, { m: p }, { m: g });
  // Adam's first step is lr against the gradient's sign, then 0.03 towards zero
  const got = await numbers(state.unet.m!.p.gate as Tensor);
  close(got, [0.5 - 0.01 - 0.03, 0, 0, -0.7 - 0.01 + 0.03], 1e-7);
  expect([got[1], got[2]].map((x) => x === 0)).toEqual([true, true]);
  const fields = { A: { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) }, B: { shape: [3, 2], data: Float32Array.of(1, 1, 2, 2, 3, 3) }, gate: { shape: [3], data: Float32Array.of(2, 0, 3) } }; // biome-ignore format: one line
  const file = method.toFile({ rank: 3, fields }, [2, 2], settingsOf(method))!;
  expect([file.rank, [...file.A], [...file.B]]).toEqual([2, [1, 3, 4, 6], [2, 2, 9, 9]]);
  const closed = { ...fields, gate: { shape: [3], data: new Float32Array(3) } };
  expect(method.toFile({ rank: 3, fields: closed }, [2, 2], settingsOf(method))).toBeUndefined();
});

test('rsLoRA: the change is s/√r·A·B', () => {
  const method = rslora as unknown as Method;
  const c = settingsOf(method, { rank: 4, scale: 3 });
  const [A, B] = [new Float32Array(8).fill(0.5), new Float32Array(12).fill(1)];
  const file = method.toFile({ rank: 4, fields: { A: { shape: [2, 4], data: A }, B: { shape: [4, 3], data: B } } }, [3, 2], c)!; // biome-ignore format: one line
  expect(file.scale * file.A[0]! * file.B[0]!).toBeCloseTo(0.5 * (3 / 2), 12);
});

describe('Tied-LoRA', () => {
  const method = tiedLora as unknown as Method;
  const c = settingsOf(method, { rank: 2 });
  const shapes: Places = new Map([
    ['x', [3, 5]],
    ['y', [4, 5]],
    ['z', [3, 6]],
  ]);
  test('the update of a shared matrix is that of the derivative by it, and it counts once in the norm', async () => {
    const start = method.init(shapes, { x: 2, y: 2, z: 2 }, hostKey(1), c);
    expect(await numbers(start.x!.A as Tensor)).toEqual(await numbers(start.y!.A as Tensor));
    const p = Object.fromEntries(
      [...shapes].map(([path, [dOut, dIn]]) => [
        path,
        { A: random(dIn!, [dIn!, 2]), B: random(10 + dOut, [2, dOut]), u: random(20 + dIn! + dOut, [2]), v: random(30 + dIn! + dOut, [dOut]) },
      ]),
    ); // biome-ignore format: one line
    const inputs = { x: random(40, [6, 5]), y: random(41, [6, 5]), z: random(42, [6, 6]) };
    const loss = (q: Readonly<Record<string, Params>>): Tensor =>
      Object.entries(inputs)
        .map(([path, x]) => {
          const weight = zeros(shapes.get(path)!, 'f64');
          const y = linear(method.attach({ weight }, q[path]!, c) as never, x);
          return sum(mul(y, mul(y, y)));
        })
        .reduce((a, b) => add(a, b));
    const g = (grad(loss as never) as (q: unknown) => Record<string, Params>)(p);
    const { state, norm } = run(method, c, p, g);
    // the derivative by what is shared, by central differences
    const values = await numbers(p.x!.A as Tensor);
    const at = async (i: number, h: number) => {
      const A = tensor(values.map((v, j) => (i === j ? v + h : v)), [5, 2], 'f64'); // biome-ignore format: one line
      return (await numbers(loss({ ...p, x: { ...p.x!, A }, y: { ...p.y!, A } })))[0]!;
    };
    const slopes: number[] = [];
    for (const i of values.keys()) slopes.push((8 * ((await at(i, 1e-3)) - (await at(i, -1e-3))) - ((await at(i, 2e-3)) - (await at(i, -2e-3)))) / 0.012); // biome-ignore format: one line
    const m = await numbers(state.unet.x!.m.A as Tensor);
    close(m, slopes.map((s) => 0.1 * s), 1e-7, 'm'); // biome-ignore format: one line
    const once = [state.unet.x!.m.A, state.unet.z!.m.A, state.unet.x!.m.B, state.unet.y!.m.B, ...['x', 'y', 'z'].flatMap((n) => [state.unet[n]!.m.u, state.unet[n]!.m.v])]; // biome-ignore format: one line
    const squares = (await Promise.all(once.map((t) => numbers(t as Tensor)))).flat().reduce((s, v) => s + (10 * v) ** 2, 0); // biome-ignore format: one line
    close(await numbers(norm), [Math.sqrt(squares)], 1e-12, 'norm');
    expect(await numbers(state.unet.y!.p.A as Tensor)).toEqual(await numbers(state.unet.x!.p.A as Tensor));
    expect(await numbers(state.unet.z!.p.B as Tensor)).toEqual(await numbers(state.unet.x!.p.B as Tensor));
  });
});

test('VeRA: all layers of a network look at one random pair', async () => {
  const method = vera as unknown as Method;
  const c = settingsOf(method, { rank: 3 });
  const start = method.init(new Map([['big', [6, 8]], ['small', [2, 5]]]), { big: 3, small: 2 }, hostKey(1), c); // biome-ignore format: one line
  const [A, a] = [await numbers(start.big!.A as Tensor), await numbers(start.small!.A as Tensor)];
  expect(a).toEqual([0, 1, 2, 3, 4].flatMap((i) => [A[i * 3]!, A[i * 3 + 1]!]));
  const [B, b] = [await numbers(start.big!.B as Tensor), await numbers(start.small!.B as Tensor)];
  expect(b).toEqual([B[0]!, B[1]!, B[6]!, B[7]!]);
  expect(new Set(A).size).toBe(A.length);
});

test('DoRA: the gradient takes the rows’ lengths for constants', async () => {
  const method = dora as unknown as Method;
  const { c, start } = atRankTwo(method, { scale: 0.7 });
  const { tree } = await moved(method, c, 'wide', start.wide!, 'f64');
  const plain = layer('wide', weightOf('wide'), 'f64');
  const x = random(9, [5, 8]);
  const g = (grad(((p: Params) => {
    const y = linear(method.attach(plain, p, c) as never, x);
    return sum(mul(y, mul(y, y)));
  }) as never) as (p: Params) => Params)(tree); // biome-ignore format: one line
  const values = { A: await numbers(tree.A as Tensor), B: await numbers(tree.B as Tensor), length: await numbers(tree.length as Tensor) }; // biome-ignore format: one line
  const W0 = Matrix.from1DArray(12, 8, Array.from(weightOf('wide')));
  const direction = (at: typeof values) => Matrix.add(W0, Matrix.from1DArray(8, 2, at.A).mmul(Matrix.from1DArray(2, 12, at.B)).transpose().mul(0.7)); // biome-ignore format: one line
  const norms = (m: Matrix) => m.to2DArray().map((row) => Math.hypot(...row));
  const constant = norms(direction(values));
  const X = Matrix.from1DArray(5, 8, await numbers(x));
  const bias = await numbers(plain.bias);
  const loss = (at: typeof values) => {
    const [V, from] = [direction(at).to2DArray(), norms(W0)];
    const W = new Matrix(V.map((row, o) => row.map((v) => (v * (from[o]! + at.length[o]!)) / constant[o]!)));
    return X.mmul(W.transpose()).to2DArray().flatMap((row) => row.map((y, o) => (y + bias[o]!) ** 3)).reduce((a, b) => a + b, 0); // biome-ignore format: one line
  };
  for (const name of ['A', 'B', 'length'] as const) {
    const slope = await numbers(g[name] as Tensor);
    const want = values[name].map((_, i) => {
      const at = (h: number) => loss({ ...values, [name]: values[name].map((v, j) => (i === j ? v + h : v)) });
      return (8 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 12e-4;
    });
    close(slope, want, 1e-6, name);
  }
});

test('OFT: angles and lengths between inputs stay: WᵀW = W0ᵀW0', async () => {
  const method = oft as unknown as Method;
  const { c, start } = atRankTwo(method);
  const { tree } = await moved(method, c, 'wide', start.wide!, 'f64');
  const attached = method.attach(layer('wide', weightOf('wide'), 'f64'), tree, c) as { readonly weight: Tensor };
  const W = Matrix.from1DArray(12, 8, await numbers(attached.weight));
  const W0 = Matrix.from1DArray(12, 8, Array.from(weightOf('wide')));
  close(W.transpose().mmul(W).to1DArray(), W0.transpose().mmul(W0).to1DArray(), 1e-12);
  expect(Matrix.sub(W, W0).norm()).toBeGreaterThan(0.5);
  expect(places.get('wide')).toEqual([12, 8]);
});

test('LoKr: sizes are those of LyCORIS’ code (its table for 360 is of an older one)', () => {
  const table: readonly (readonly [number, number | null, number, number])[] = [
    [127, null, 1, 127], [128, null, 8, 16], [128, 2, 2, 64], [128, 4, 4, 32], [128, 16, 8, 16], [250, 4, 2, 125], [250, 8, 5, 50],
    [360, 8, 8, 45], [360, 16, 15, 24], [360, null, 18, 20], [512, 4, 4, 128], [1024, null, 32, 32], [1024, 16, 16, 64],
  ]; // biome-ignore format: as a table
  for (const [size, factor, small, large] of table) expect(factorization(size, factor), `${size} ${factor}`).toEqual([small, large]); // biome-ignore format: one line
});

test('a run cannot begin from a low-rank file where no parameters say it, and is told so', () => {
  const shapes: Places = new Map([['m', [3, 2]]]);
  const known = { unet: { m: 2 }, text: {} };
  const refused = methodNames.filter((name) => {
    const method = methodOf(name);
    try {
      return method.ranks(settingsOf(method), { unet: shapes, text: new Map() }, known) === undefined;
    } catch (error) {
      expect((error as Error).message).toBe(`--init-adapter: a low-rank file has no form that --method ${name} could begin from; use lora`); // biome-ignore format: one line
      return true;
    }
  });
  expect(refused).toEqual(['lora-ga', 'gora', 'eva', 'dora', 'vera', 'tied-lora', 'lokr', 'loha', 'oft', 'ia3']);
});
