/** What a golden `selora` file holds, as trees: the batch, the adapters, the candidate columns. */
import { join } from 'node:path';
import { z } from 'zod';
import { type Backend, evaluate, ones, zeros } from '../../../core/index.ts';
import { textEncoderSpec } from '../../../models/clip/text-encoder.ts';
import type { ModelConfigs } from '../../../models/config.ts';
import { readConfigs } from '../../../models/io/base.ts';
import { openPart } from '../../../models/io/part.ts';
import { load } from '../../../models/spec.ts';
import { unetSpec } from '../../../models/unet/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import { lowRank } from '../../../selora/methods/low-rank.ts';
import { fromModuleName, moduleName } from '../../../selora/networks.ts';
import type { Trial } from '../../../selora/trial.ts';
import type { SeloraSteps } from '../../bench/step.ts';
import { slotOf } from '../../step/ranks.ts';
import {
  type Batch,
  type Frozen,
  type Hyper,
  mapModules,
  type PerModule,
  type PerNetwork,
  type State,
} from '../../step/step.ts';
import { floats, integers, type Precision, precisionOf, toChannelsLast } from '../distances.ts';
import { type GoldenTensor, type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../golden.ts';

export const SELORA_FILES = ['selora.json', 'selora.safetensors', 'tiny-sd'] as const;

const scores = z.object({ fi: z.number(), fi_exp: z.number(), ratio: z.number() });
const module = scores.extend({
  d_in: z.int().min(1),
  d_out: z.int().min(1),
  rank: z.int().min(1).max(4096),
  fi_A: z.number(),
  fi_B: z.number(),
  start: scores.optional(),
});
export const seloraSchema = z.object({
  modules: z.record(z.string(), module),
  full_per_sample_gradients_of: z.array(z.string()).default([]),
  numbers: z.object({
    loss_without_adapters: z.number(),
    loss: z.number(),
    loss_float32: z.number(),
    per_sample_losses: z.array(z.number()),
    adam: z.object({
      lr: z.number(),
      betas: z.tuple([z.number(), z.number()]),
      eps: z.number(),
      weight_decay: z.number(),
      losses: z.array(z.number()).min(1).max(1000),
    }),
    float32_vs_float64: z.record(z.string(), z.number()),
  }),
});
export type SeloraJson = z.output<typeof seloraSchema>;
export type GoldenModule = SeloraJson['modules'][string];

export type SeloraGolden = {
  readonly json: SeloraJson;
  readonly tensors: GoldenTensors;
  readonly configs: ModelConfigs;
  readonly base: Frozen;
  readonly batch: Batch;
  readonly precision: Precision;
};

/** The scale of the golden adapters: y = x·W0ᵀ + b + (x·A)·B. */
export const SCALE = 1;
/** What every part of the check is given. */
export type Check = {
  readonly golden: SeloraGolden;
  readonly backend: Backend;
  readonly steps: SeloraSteps;
  readonly hyper: Hyper;
};

/** @throws Error one line: a file or tensor is missing or malformed */
export async function readSelora(directory: string, backend: Backend): Promise<SeloraGolden> {
  const precision = precisionOf(backend);
  const json = await readGoldenJson(directory, 'selora.json', seloraSchema);
  const tensors = await readGoldenTensors(join(directory, 'selora.safetensors'));
  const folder = join(directory, 'tiny-sd');
  const { configs } = await readConfigs(folder);
  const weights = async (part: 'unet' | 'text_encoder') => (await openPart(join(folder, part), part)).source;
  const base: Frozen = {
    unet: await load(unetSpec(configs.unet), await weights('unet'), { dtype: precision }),
    text: await load(textEncoderSpec(configs.textEncoder), await weights('text_encoder'), { dtype: precision }),
  };
  const picture = (name: string) => toChannelsLast(floats(need(tensors, name), precision));
  const t = integers(need(tensors, 'timesteps'));
  const batch: Batch = {
    x: picture('noisy_latents'),
    t,
    ids: integers(need(tensors, 'input_ids')),
    target: picture('noise'),
    weight: ones(t.shape, precision),
  };
  return { json, tensors, configs, base, batch: evaluate(batch, backend), precision };
}

/** Something for every module of the file, by network and path. */
export function byNetwork<T>(
  json: SeloraJson,
  make: (name: string, module: GoldenModule) => T,
): PerNetwork<{ [path: string]: T }> {
  const out: PerNetwork<{ [path: string]: T }> = { unet: {}, text: {} };
  const names = Object.keys(json.modules);
  for (const [name, module] of Object.entries(json.modules)) {
    const [network, path] = fromModuleName(name) ?? [];
    if (network && path !== undefined) out[network][path] = make(name, module);
  }
  const stray = names.find((name) => fromModuleName(name) === undefined);
  if (stray !== undefined || names.length === 0)
    throw new Error(
      `selora.json: module ${stray ?? 'list is empty'}: expected names that begin with unet. or text_encoder.`,
    );
  return out;
}

/** The stored adapters; `start`: rank 1, the first column of A and B = 0. */
export const adaptersOf = ({ json, tensors, precision }: SeloraGolden, start = false): PerNetwork<Adapters> =>
  byNetwork(json, (name): Adapter => {
    const [A, B] = [need(tensors, `adapter.${name}.A`), need(tensors, `adapter.${name}.B`)];
    if (!start) return { A: floats(A, precision), B: floats(B, precision) };
    return { A: floats(columns(A, 1), precision), B: zeros([1, B.shape[1]!], precision) };
  });

const columns = ({ data, shape, dtype }: GoldenTensor, count: number): GoldenTensor => {
  const [rows, width] = shape as [number, number];
  const kept = Float64Array.from(
    { length: rows * count },
    (_, i) => data[Math.floor(i / count) * width + (i % count)]!,
  );
  return { dtype, shape: [rows, count], data: kept };
};

/** A training state around the adapters: moments zero, all ranks of age 0, room for one candidate more. */
export function stateOf(adapters: PerNetwork<Adapters>): State<Adapter> {
  const capacity = 1 + Math.max(...Object.values({ ...adapters.unet, ...adapters.text }).map(rankOf));
  return mapModules((adapter: Adapter) => slotOf(adapter, lowRank.fields([1, 1], 1), capacity), adapters);
}

/** The stored columns, each pointed at the first free rank of its module. */
export function candidatesOf(
  golden: SeloraGolden,
  adapters: PerNetwork<Adapters>,
  state: State<Adapter>,
): PerModule<Trial> {
  return mapModules((adapter: Adapter, path, network) => {
    const K = floats(need(golden.tensors, `adapter.${moduleName(network, path)}.K`), golden.precision);
    const capacity = state[network][path]!.p.A.shape[1]!;
    const slot = Float64Array.from({ length: capacity }, (_, i) => (i === rankOf(adapter) ? 1 : 0));
    return { K, slot: floats({ dtype: 'F64', shape: [1, capacity], data: slot }, golden.precision) };
  }, adapters);
}
