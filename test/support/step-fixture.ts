/** A tiny U-Net and text encoder with random weights, adapters and batches: what the tests of the training step share. */
import { type Backend, evaluate, type Tensor, tensor } from '../../core/index.ts';
import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, unetSchema } from '../../models/config.ts';
import { linearPaths, specShapes } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { init } from '../../nn/index.ts';
import { type Adapter, type Adapters, hostKey, initAdapters, rankOf } from '../../selora/adapter.ts';
import { lowRank } from '../../selora/methods/low-rank.ts';
import type { Settings } from '../../selora/methods/method.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { selora } from '../../selora/methods/selora.ts';
import type { Trial } from '../../selora/trial.ts';
import type { ModelPlaces } from '../../train/model/pipeline.ts';
import { adamDefaults } from '../../train/optimise/optimizer.ts';
import { capacityFor, slotOf } from '../../train/step/ranks.ts';
import {
  type Batch,
  createSteps,
  type Frozen,
  mapModules,
  type PerModule,
  type PerNetwork,
  type Ranks,
  type Slot,
  type State,
  type StepOptions,
} from '../../train/step/step.ts';
import { rng } from './gradcheck.ts';
import { TINY_CONFIGS } from './tiny-base.ts';

export type Float = 'f32' | 'f64';
export const configs = {
  unet: parseConfig(unetSchema, TINY_CONFIGS.unet, 'unet'),
  text: parseConfig(textEncoderSchema, { ...TINY_CONFIGS.textEncoder, max_position_embeddings: 6 }, 'text_encoder'),
};
const specs = { unet: unetSpec(configs.unet), text: textEncoderSpec(configs.text) };
const linearsOf = (n: 'unet' | 'text') =>
  new Map(
    linearPaths(specs[n]).map((p) => [
      p,
      specShapes(specs[n]).get(`${p}.weight`) as unknown as readonly [number, number],
    ]),
  );
export const linears = { unet: linearsOf('unet'), text: linearsOf('text') } satisfies ModelPlaces;

export const frozen = (dtype: Float): Frozen => ({
  unet: init(specs.unet, 1, { dtype }),
  text: init(specs.text, 2, { dtype }),
});

/** Values that are exact in f32. */
const drawer = (seed: number, dtype: Float) => {
  const random = rng(seed);
  return (shape: readonly number[], size = 1): Tensor =>
    tensor(
      Array.from({ length: shape.reduce((p, n) => p * n, 1) }, () => Math.fround((random() * 2 - 1) * size)),
      shape,
      dtype,
    );
};

/** Adapters of one rank on every linear layer, B not zero. */
export function adapters(rank: number, dtype: Float): PerNetwork<Adapters> {
  const draw = drawer(17, dtype);
  const of = (n: 'unet' | 'text'): Adapters =>
    Object.fromEntries(
      [...linears[n]].map(([path, [dOut, dIn]]) => [path, { A: draw([dIn, rank]), B: draw([rank, dOut], 0.3) }]),
    );
  return { unet: of('unet'), text: of('text') };
}
export const startAdapters = (rank: number): PerNetwork<Adapters> => ({
  unet: initAdapters(hostKey(3), linears.unet, rank, { a: 0 }),
  text: initAdapters(hostKey(4), linears.text, rank, { a: 0 }),
});

export const stateOf = (a: PerNetwork<Adapters>, capacity: number, backend: Backend): State<Adapter> =>
  evaluate(
    mapModules((x: Adapter) => slotOf(x, lowRank.fields([1, 1], 1), capacity), a),
    backend,
  );

export function batch(size: number, seed: number, dtype: Float): Batch {
  const draw = drawer(seed, dtype);
  const random = rng(seed + 1);
  const { vocab_size: words, max_position_embeddings: length } = configs.text;
  return {
    x: draw([size, 4, 4, configs.unet.in_channels]),
    t: tensor(
      Array.from({ length: size }, () => Math.floor(random() * 1000)),
      [size],
      dtype,
    ),
    ids: tensor(
      Int32Array.from({ length: size * length }, () => Math.floor(random() * words)),
      [size, length],
    ),
    target: draw([size, 4, 4, configs.unet.out_channels]),
    weight: tensor(
      Array.from({ length: size }, () => Math.fround(0.5 + random())),
      [size],
      dtype,
    ),
  };
}
/** Samples from..to of a batch. */
export const part = (b: Batch, from: number, to: number, values: ReadonlyMap<Tensor, ArrayLike<number>>): Batch =>
  Object.fromEntries(
    Object.entries(b).map(([name, x]) => {
      const each = x.shape.slice(1).reduce((p, n) => p * n, 1);
      const data = Array.from(values.get(x)!).slice(from * each, to * each);
      return [name, tensor(data, [to - from, ...x.shape.slice(1)], x.dtype)];
    }),
  ) as Batch;

/** A candidate for every module, in the rank after its last. */
export function candidatesFor(s: State<Adapter>, a: PerNetwork<Adapters>, dtype: Float): PerModule<Trial> {
  const draw = drawer(23, dtype);
  return mapModules((slot: Slot<Adapter>, path, n) => {
    const [dIn, capacity] = slot.p.A.shape as [number, number];
    const row = Array.from({ length: capacity }, (_, i) => (i === rankOf(a[n][path]!) ? 1 : 0));
    return { K: draw([dIn, 1]), slot: tensor(row, [1, capacity], dtype) };
  }, s);
}

/** SeLoRA with its settings as a run has them. */
export const chosen = (given: Settings = {}) => ({
  method: selora,
  settings: settingsOf(selora, { scale: 0.8, ...given }),
});
export const steps = (
  backend: Backend,
  {
    given = {},
    ...extra
  }: Partial<Pick<StepOptions, 'adam' | 'clip' | 'checkpointBlocks' | 'check'>> & { given?: Settings } = {},
) =>
  createSteps({ backend, configs, ...chosen(given), adam: adamDefaults, clip: 0, checkpointBlocks: false, ...extra });
/** What a test begins with, in a run of this seed. */
export const nowOf = (places: ModelPlaces, ranks: Ranks, step: number, seed = 9) => ({
  step,
  steps: 1000,
  key: hostKey(seed),
  places,
  ranks,
  room: capacityFor(ranks, chosen()),
  memories: {},
});
export const rate = (lr: number, dtype: Float, textLr = lr) => ({
  unet: tensor([lr], [], dtype),
  text: tensor([textLr], [], dtype),
});
