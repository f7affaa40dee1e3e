/** A small U-Net with adapters on every linear layer and convolution, in f64, for the tests of growth by gain. */
import { Matrix } from 'ml-matrix';
import { cast, evaluate, grad, mapTree, mean, permute, read, type Tensor, tensor } from '../../core/index.ts';
import { adaptablePaths, specShapes } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { kaimingUniform } from '../../selora/adapter.ts';
import type { Asked, Probe, Sketched } from '../../selora/gain/probe.ts';
import type { Gaining } from '../../selora/gain/schedule.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import type { Now, Passes, Place, Ranks } from '../../selora/methods/method.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { selora } from '../../selora/methods/selora.ts';
import { adamDefaults } from '../../train/optimise/optimizer.ts';
import { sampleLosses } from '../../train/step/gradients.ts';
import { type Batch, createSteps, mapModules, networks, type PerModule, paramsOf } from '../../train/step/step.ts';
import { batch, configs, linears, stateOf } from './step-fixture.ts';
import { base, cpu } from './toy-method.ts';

const SCALE = 0.8;
export const settings = settingsOf(selora, { criterion: 'gain', rank: 0, scale: SCALE, probe: 256, testEvery: 10 });
export const c = settings as unknown as Gaining;
const spec = unetSpec(configs.unet);
const shapes = specShapes(spec);
export const places = {
  unet: new Map(adaptablePaths(spec).map((p) => [p, shapes.get(`${p}.weight`) as unknown as Place])),
  text: linears.text as ReadonlyMap<string, Place>,
};
export const modules: PerModule<Place> = {
  unet: Object.fromEntries(places.unet),
  text: Object.fromEntries(places.text),
};
export const ranks: Ranks = mapModules(
  (_place, path) => (path.endsWith('to_q') ? 2 : path.endsWith('to_k') ? 1 : 0),
  modules,
);
export const ROOM = 4;
/** adapters of those ranks, rows of B by their number */
const adaptersOf = (row: (i: number) => number) =>
  mapModules((place: Place, path, n) => {
    const rank = ranks[n][path]!;
    const A = kaimingUniform([7, path.length], inputsOf(place), inputsOf(place) * rank, { a: 0 });
    return {
      A: tensor(Array.from(A), [inputsOf(place), rank], 'f64'),
      B: tensor(
        Float64Array.from({ length: rank * place[0] }, (_, i) => row(i)),
        [rank, place[0]],
      ),
    };
  }, modules);
/** fresh ones, B = 0, and ones that have learned */
export const [fresh, learned] = [adaptersOf(() => 0), adaptersOf((i) => 0.05 * Math.sin(1 + 1.7 * i))];
export const now: Now<never> = {
  step: 1,
  steps: 100,
  key: [3, 4],
  places,
  ranks,
  room: mapModules(() => ROOM, ranks),
  memories: {},
};
export const batches = [1, 2].map((seed) => batch(2, seed, 'f64'));
export const programs = createSteps({ backend: cpu, configs, method: selora, settings, adam: adamDefaults, clip: 0, checkpointBlocks: false } as never); // biome-ignore format: one line
export const stateWith = (adapters: typeof fresh, room = ROOM) => stateOf(adapters, room, cpu);
const wide = (x: PerModule<Probe>) =>
  mapModules(
    (probe) =>
      evaluate(
        mapTree((t: Tensor) => cast(t, 'f64'), probe),
        cpu,
      ) as Probe,
    x,
  );
const unasked = () => {
  throw new Error('is not asked for');
};
/** the passes of a test over both batches; no update */
export const passesOf = (
  state: ReturnType<typeof stateWith>,
): Passes<Probe, Sketched<Float64Array> | Asked<Float64Array>> => ({
  batches: batches.length,
  update: unasked,
  look: unasked,
  measure: unasked,
  loss: (x, range) => programs.trialLoss(state as never, base.f64, batches.slice(...range!), wide(x) as never),
  each: (x, range) => programs.each(state as never, base.f64, batches.slice(...range!), wide(x) as never) as never,
});
/** losses of the samples of a batch */
export const lossesOf = (params: PerModule<{ readonly A: Tensor; readonly B: Tensor }>, of: Batch): Tensor =>
  sampleLosses({ configs, method: selora, settings, checkpointBlocks: false } as never, params as never, base.f64, of);

/** ∂L/∂ΔW[d_in, d_out] of every module over a batch, from the gradient of the frozen weights themselves */
export async function dense(state: ReturnType<typeof stateWith>, of: Batch): Promise<PerModule<Matrix>> {
  const o = { configs, method: selora, settings, checkpointBlocks: false };
  const loss = (net: typeof base.f64): Tensor => mean(sampleLosses(o as never, paramsOf(state) as never, net, of));
  const g = grad(loss as never)(base.f64 as never) as unknown as typeof base.f64;
  const out: { unet: Record<string, Matrix>; text: Record<string, Matrix> } = { unet: {}, text: {} };
  const wanted = networks.flatMap((n) =>
    [...places[n]].map(([path, place]) => {
      const w = path
        .split('.')
        .reduce((node, key) => (node as Readonly<Record<string, unknown>>)[key], g[n] as unknown) as { weight: Tensor };
      // [d_out, d_in] as it is; a kernel [kh, kw, in, out] in the order of files, [in, kh, kw]
      return { n, path, place, G: permute(w.weight, place.length === 2 ? [1, 0] : [2, 0, 1, 3]) };
    }),
  );
  // all at once: one by one, each would run forward and backward anew
  const values = evaluate(
    wanted.map(({ G }) => G),
    cpu,
  );
  for (const [i, { n, path, place }] of wanted.entries())
    out[n][path] = Matrix.from1DArray(inputsOf(place), place[0], Array.from(await read(values[i]!))).mul(SCALE);
  return out;
}
