/** The plan of a run against the run itself: peak memory, the choice of micro-batches, what they compute, f16 storage. */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import {
  type Backend,
  cast,
  entries,
  randomOf,
  read,
  readScalar,
  seedKey,
  type Tensor,
  tensor,
  unflatten,
} from '../../../core/index.ts';
import { floatToHalf } from '../../../models/io/dtypes.ts';
import { load } from '../../../models/spec.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { drawCandidates, judge, scoresFrom } from '../../../selora/growth.ts';
import { fisherRanks } from '../../../selora/methods/fisher-ranks.ts';
import type { Method } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { addUp, planSteps } from '../../../train/estimate/estimate.ts';
import { refusal, settle, shapeOf } from '../../../train/estimate/settle.ts';
import { linearsOf, loadPipeline, openBaseAt, specsOf } from '../../../train/model/model.ts';
import { SMALL_BASE } from '../../../train/model/paths.ts';
import { targetsOf } from '../../../train/model/targets.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { lookedAt } from '../../../train/step/begin.ts';
import { capacityFor, padState, startState } from '../../../train/step/ranks.ts';
import {
  type Batch,
  createSteps,
  type Frozen,
  mapModules,
  mapNetworks,
  paramsOf,
  type Ranks,
} from '../../../train/step/step.ts';
import { writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { LONG, longRows, longTest } from '../../support/long.ts';

const SIDE = 64;
const random = randomOf(seedKey(11));
const normals = (n: number) => Float32Array.from({ length: n }, () => random.normal());
const base = await openBaseAt(SMALL_BASE);
const config = resolveConfig({ batch: 4, accumulate: 2, resolution: SIDE, samples: 1, validationPairs: 1 });
const latent = SIDE / 8;

const batchOf = (n: number): Batch => ({
  x: tensor(normals(n * latent * latent * 4), [n, latent, latent, 4]),
  t: tensor(Float32Array.from({ length: n }, (_, i) => 100 + 250 * i)),
  ids: tensor(
    Int32Array.from({ length: n * 77 }, (_, i) => (i * 997) % 49_000),
    [n, 77],
  ),
  target: tensor(normals(n * latent * latent * 4), [n, latent, latent, 4]),
  weight: tensor(new Float32Array(n).fill(1)),
});
/** rows from … to of a batch */
const part = async (b: Batch, from: number, to: number): Promise<Batch> =>
  Object.fromEntries(
    await Promise.all(
      Object.entries(b).map(async ([k, t]) => {
        const each = t.shape.slice(1).reduce((n: number, side: number) => n * side, 1);
        return [k, tensor((await read(t)).slice(from * each, to * each), [to - from, ...t.shape.slice(1)])];
      }),
    ),
  ) as unknown as Batch;

const chosen = { method: selora, settings: settingsOf(selora) };
/** All linear layers, and one of each attention where the number of modules does not matter: traced in half the time. */
const all = linearsOf(base);
const few = targetsOf(base, { ...config, targets: '**.to_q,text.**.q_proj' });
const started = (backend: Backend, places = all) => startState({ ...chosen, seed: config.seed }, places, backend);
const draw = (ranks: Ranks, places = all) =>
  drawCandidates(config, {
    step: 1,
    key: hostKey(config.seed),
    places,
    ranks,
    room: capacityFor(ranks, chosen),
  });

const stepsOn = (backend: Backend) =>
  createSteps({
    backend,
    configs: { unet: base.configs.unet, text: base.configs.textEncoder },
    ...chosen,
    adam: adamDefaults,
    clip: 1,
    checkpointBlocks: false,
  });
const hyper = { unet: tensor(1e-3), text: tensor(1e-3) };

const opened: readonly [string, () => Promise<Backend>][] = [
  ['wasm', async () => wasmBackend({ threads: 2 }) as Backend],
  ['webgpu', async () => (await webgpuBackend()) as Backend],
];

describe.each(longRows(opened, ([name]) => name === 'wasm'))('prediction on %s', (_name, open) => {
  // halves and 4 bits are planned by the same sums
  it.each(longRows(['f32', 'f16', 'nf4'] as const, (weights) => weights === 'f32'))(
    "the backend's peak lies within 10% of the plan, %s weights",
    { timeout: 300_000 },
    async (weights) => {
      const backend = await open();
      const shape = shapeOf(base, { ...config, weights }, backend);
      const linears = LONG ? all : few;
      // of the programs that run here: pictures are not encoded
      const planned = addUp(base, linears, shape, planSteps(base, linears, shape, backend), backend);
      expect(backend.memory().peakBytes, 'planning allocates nothing').toBe(0);
      const { pipeline } = await loadPipeline(SMALL_BASE, backend, { weights });
      const frozen: Frozen = { unet: pipeline.unet, text: pipeline.text };
      const steps = stepsOn(backend);
      let { state, ranks } = started(backend, linears);
      const batches = [batchOf(2), batchOf(2)];
      for (const drawn of [undefined, draw(ranks, linears)])
        state = steps.accumulated(state, frozen, batches, hyper, drawn?.candidates).state;
      const measured = backend.memory().peakBytes;
      expect(planned.backendBytes / measured).toBeGreaterThan(0.9);
      expect(planned.backendBytes / measured).toBeLessThan(1.1);
      await backend.close();
    },
  );
});

longTest('ranks dealt out by gain are in the plan: its test and the step after it, within 10%', async () => {
  const backend = wasmBackend({ threads: 2 }) as Backend;
  const method = selora as unknown as Method;
  const places = [...few.unet.values(), ...few.text.values()];
  // as much as four ranks of every module
  const each = 4;
  const budgetParameters = each * places.reduce((sum, [dOut, dIn]) => sum + dOut + dIn, 0);
  const settings = settingsOf(method, { criterion: 'gain', rank: 0, budgetParameters, fiBatches: 4 });
  const gain = { method, settings };
  const shape = { ...shapeOf(base, { ...config, accumulate: 1, batch: 2 }, backend), chosen: gain };
  const plans = planSteps(base, few, shape, backend);
  // of each of the test's four batches: rows and gates of two samples, and the ranks there are
  const said = places.reduce((n, [dOut, dIn]) => n + 2 * (16 * dOut + each) + each * (dIn + dOut), 0);
  expect(plans.reduce((n, { hostBytes }) => n + hostBytes, 0)).toBe(4 * 4 * said);
  const planned = addUp(base, few, shape, plans, backend);
  const { pipeline } = await loadPipeline(SMALL_BASE, backend);
  const frozen: Frozen = { unet: pipeline.unet, text: pipeline.text };
  const configs = { unet: base.configs.unet, text: base.configs.textEncoder };
  const steps = createSteps({ backend, configs, ...gain, adam: adamDefaults, clip: 1, checkpointBlocks: false });
  const { state, ranks } = startState({ ...gain, seed: 1 }, few, backend);
  const columns = mapNetworks(
    (places) =>
      Object.fromEntries(
        [...places].map(([path, place]) => [
          path,
          { K: tensor(new Float32Array(place[1] * 16).fill(1), [place[1], 16]) },
        ]),
      ),
    few,
  );
  await steps.each(state, frozen, [batchOf(2)], columns as never);
  const even = mapModules(() => each, ranks);
  await readScalar(
    steps.plain(padState(gain, state, capacityFor(even, gain), backend), frozen, batchOf(2), hyper).loss,
  );
  const measured = backend.memory().peakBytes;
  expect(planned.backendBytes / measured).toBeGreaterThan(0.9);
  expect(planned.backendBytes / measured).toBeLessThan(1.1);
  await backend.close();
});

longTest(
  'a start that looks at gradients is in the plan: what one group of modules needs, within 10%',
  {
    timeout: 300_000,
  },
  async () => {
    const backend = wasmBackend({ threads: 2 }) as Backend;
    const method = fisherRanks as unknown as Method;
    const settings = settingsOf(method);
    const shape = { ...shapeOf(base, config, backend), chosen: { method, settings } };
    const plan = planSteps(base, few, shape, backend).find(({ name }) => name === 'gradients of the start')!;
    const { pipeline } = await loadPipeline(SMALL_BASE, backend);
    const held = backend.memory().peakBytes;
    const parts = { configs: pipeline.configs, checkpointBlocks: false, backend };
    const frozen: Frozen = { unet: pipeline.unet, text: pipeline.text };
    await lookedAt({ method, settings, seed: 1 }, parts, few, frozen, [batchOf(2), batchOf(2)]);
    const needed = backend.memory().peakBytes - held;
    const said = `${plan.workspaceBytes} planned, ${needed} needed beside ${held}`;
    expect((held + plan.workspaceBytes) / (held + needed), said).toBeGreaterThan(0.9);
    expect((held + plan.workspaceBytes) / (held + needed), said).toBeLessThan(1.1);
    expect(needed, said).toBeGreaterThan(plan.workspaceBytes / 2);
    // a run from a file looks at nothing
    const initial = { unet: new Map(), text: new Map() };
    const from = planSteps(base, few, { ...shape, chosen: { method, settings, initial } }, backend);
    expect(from.some(({ name }) => name === plan.name)).toBe(false);
    await backend.close();
  },
);

describe('choice', () => {
  // A base of a few channels: what is compared are plans of one base, and a dozen of them are made.
  let tiny: typeof base;
  beforeAll(async () => {
    const folder = join(scratch, 'tiny');
    await writeCalmBase(folder);
    tiny = await openBaseAt(folder);
  });
  const backend = wasmBackend({ threads: 1 }) as Backend;
  const both = { accumulate: true, checkpointBlocks: true };
  const none = { accumulate: false, checkpointBlocks: false };
  // Few modules and no pictures: the plans of a step are what is chosen by, and a dozen of them are made.
  const wide = {
    ...config,
    ...{ batch: 4, accumulate: 1, targets: '**.to_q', samples: 0, obedience: 0, validationPairs: 0 },
  };
  const at = (bytes: number, open = both) => {
    const { accumulate, checkpointBlocks } = settle(wide, open, tiny, backend, {
      backend: bytes,
      limit: 'a test allows',
      process: 1e12,
    }).config;
    return { accumulate, checkpointBlocks };
  };
  const bytesOf = (accumulate: number, checkpointBlocks: boolean) =>
    settle({ ...wide, accumulate, checkpointBlocks }, none, tiny, backend, { backend: 1, limit: '', process: 1e12 })
      .estimate.backendBytes;
  longTest(
    'fewest micro-batches with kept blocks, recomputed blocks where nothing else fits',
    { timeout: 120_000 },
    () => {
      const [whole, halves, recomputed] = [bytesOf(1, false), bytesOf(2, false), bytesOf(1, true)];
      expect(halves).toBeLessThan(whole);
      expect(recomputed).toBeLessThan(whole);
      expect(at(whole)).toEqual({ accumulate: 1, checkpointBlocks: false });
      expect(at(whole - 1)).toEqual({ accumulate: 2, checkpointBlocks: false });
      expect(at(halves)).toEqual({ accumulate: 2, checkpointBlocks: false });
      expect(at(whole - 1, { ...both, accumulate: false })).toEqual({ accumulate: 1, checkpointBlocks: true });
      // nothing fits: the smallest is what the refusal speaks of
      expect(at(1)).toEqual({ accumulate: 4, checkpointBlocks: true });
      expect(at(1, none)).toEqual({ accumulate: 1, checkpointBlocks: false });
    },
  );
  it('a refusal is one line with both numbers, three causes and what to change', { timeout: 60_000 }, () => {
    const budget = { backend: 2 ** 20, limit: 'a test allows', process: 1e12 };
    const said = refusal(settle(wide, none, tiny, backend, budget), budget)!;
    expect(said).toMatch(/^this run needs [\d.]+ MiB, a test allows 1\.0 MiB: ([^,;]+ [\d.]+ MiB(, |; )){3}try /);
    for (const change of ['--weights f16', '--checkpoint-blocks on', '--accumulate 4', 'a --resolution below 64'])
      expect(said).toContain(change);
    expect(said).not.toContain('\n');
  });
});

describe('micro-batches', () => {
  longTest('the update from four equals the update from their union', { timeout: 120_000 }, async () => {
    const backend = wasmBackend({ threads: 1 }) as Backend;
    const { pipeline } = await loadPipeline(SMALL_BASE, backend);
    const frozen: Frozen = { unet: pipeline.unet, text: pipeline.text };
    const batch = batchOf(4);
    const parts = await Promise.all([0, 1, 2, 3].map((i) => part(batch, i, i + 1)));
    const steps = stepsOn(backend);
    const fresh = () => started(backend, few);
    const drawn = draw(fresh().ranks, few).candidates;
    const whole = steps.tested(fresh().state, frozen, batch, hyper, drawn);
    const summed = steps.accumulated(fresh().state, frozen, parts, hyper, drawn);
    const norm = (x: Iterable<number>) => Math.hypot(...x);
    const apart = async (a: Tensor, b: Tensor) => {
      const [x, y] = [await read(a), await read(b)];
      return { size: norm(x), distance: norm(Float64Array.from(x, (v, i) => v - y[i]!)) };
    };
    const close = async (a: Tensor, b: Tensor, what: string, tolerance: number) => {
      const { size, distance } = await apart(a, b);
      expect(distance, what).toBeLessThanOrEqual(tolerance * size);
    };
    await close(whole.loss, summed.loss, 'loss', 1e-6);
    await close(whole.norm, summed.norm, 'gradient norm', 1e-5);
    // Every leaf is held to 1e-11 in f64 (`step/step.test.ts`). In f32 the sums of single queries and values all but cancel and
    // keep two to four digits, so those digits are asked of the leaves, and rounding of their total: a lost micro-batch is a quarter.
    const others = new Map(entries<Tensor>(summed.sums! as never));
    const all = await Promise.all(
      entries<Tensor>(whole.sums as never).map(async ([name, t]) => ({ name, ...(await apart(t, others.get(name)!)) })),
    );
    for (const { name, size, distance } of all) expect(distance, name).toBeLessThanOrEqual(1e-2 * size);
    expect(norm(all.map((x) => x.distance))).toBeLessThanOrEqual(1e-4 * norm(all.map((x) => x.size)));
    await backend.close();
  });
});

// weights in halves are held to golden numbers in `train/verify/verify-half-storage`, and to their widened selves in `core/half`
describe.runIf(LONG)('f16 storage of weights that are not halves', () => {
  const backend = wasmBackend({ threads: 2 }) as Backend;
  const frozen: { f32?: Frozen; f16?: Frozen } = {};
  beforeAll(async () => {
    const specs = specsOf(base);
    /** the shipped base, moved by up to half a unit in the last place of a half float */
    const moved = async <P>(params: P): Promise<{ f32: P; f16: P }> => {
      const f32: Tensor[] = [];
      const f16: Tensor[] = [];
      for (const [, t] of entries<Tensor>(params as never)) {
        const x = Float32Array.from(
          (await read(t)) as Float32Array,
          (v) => v * (1 + (random.uniform() - 0.5) * 2 ** -10),
        );
        f32.push(tensor(x, t.shape));
        f16.push(t.shape.length > 1 ? tensor(floatToHalf(x), t.shape) : tensor(x, t.shape));
      }
      return { f32: unflatten(params, f32), f16: unflatten(params, f16) };
    };
    const unet = await moved(await load(specs.unet, base.parts.unet));
    const text = await moved(await load(specs.text, base.parts.text_encoder));
    frozen.f32 = { unet: unet.f32, text: text.f32 };
    frozen.f16 = { unet: unet.f16, text: text.f16 };
  }, 60_000);

  it('loss and FI ratios change by no more than the rounding of the weights', { timeout: 120_000 }, async () => {
    const steps = stepsOn(backend);
    const batch = batchOf(4);
    const results = [];
    for (const which of ['f32', 'f16'] as const) {
      const { state, ranks } = started(backend);
      const drawn = draw(ranks);
      const r = steps.tested(state, frozen[which]!, batch, hyper, drawn.candidates);
      results.push({
        loss: (await read(r.loss))[0]!,
        decisions: judge(config, scoresFrom(await steps.readSums(r.sums), ranks), ranks, drawn.keys),
      });
    }
    const [a, b] = results as [(typeof results)[0], (typeof results)[0]];
    const relative = (x: number, y: number) => Math.abs(x - y) / Math.abs(x);
    const byName = new Map(b.decisions.map((d) => [d.module, d]));
    const changes = a.decisions.map((d) => relative(d.ratio, byName.get(d.module)!.ratio)).sort((x, y) => x - y);
    const flips = a.decisions.filter((d) => d.expanded !== byName.get(d.module)!.expanded).length;
    const said = `loss ${relative(a.loss, b.loss).toExponential(1)}, ratios median ${changes[changes.length >> 1]!.toExponential(1)}, largest ${changes.at(-1)!.toExponential(1)}, other decisions ${flips} of ${changes.length}`;
    if (process.env.SELORA_SAY) console.log(said);
    // each weight is off by at most 2⁻¹¹ of itself; hundreds of independent roundings average out below that
    expect(relative(a.loss, b.loss), said).toBeLessThan(2 ** -11);
    expect(relative(a.loss, b.loss), 'the weights do differ').toBeGreaterThan(0);
    expect(changes[changes.length >> 1]!, said).toBeLessThan(2 ** -8);
    expect(flips, said).toBeLessThanOrEqual(2);
  });
  it('weights that are halves already give the same bits', { timeout: 60_000 }, async () => {
    const x = tensor(floatToHalf(normals(64)), [64]);
    expect(await read(cast(x, 'f16'))).toEqual(await read(x));
    const [f32, f16] = await Promise.all(
      (['f32', 'f16'] as const).map((weights) => loadPipeline(SMALL_BASE, backend, { weights })),
    );
    const steps = stepsOn(backend);
    const batch = batchOf(2);
    const { state } = started(backend, few);
    const adapters = paramsOf(state);
    const losses = async (m: typeof f32) =>
      read(steps.losses(adapters, { unet: m!.pipeline.unet, text: m!.pipeline.text }, batch));
    expect(await losses(f16)).toEqual(await losses(f32));
  });
});
