/** A base model made ready to run, with or without an adapter: what `generate` and the trainer start from. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { type Backend, CoreError, type Tree } from '../../core/index.ts';
import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { checkAdapter } from '../../models/io/adapter-check.ts';
import { combine, type Share, splitStrength } from '../../models/io/adapter-combine.ts';
import { type AdapterFile, readAdapter } from '../../models/io/adapter-file.ts';
import { type Base, openBase } from '../../models/io/base.ts';
import { readTokenizer, type TokenizerFiles } from '../../models/io/tokenizer-files.ts';
import { checkWeights, type Spec } from '../../models/io/weights.ts';
import { PARTS, type Part } from '../../models/names.ts';
import { makeSchedule } from '../../models/schedulers/index.ts';
import {
  adaptablePaths,
  type LoadOptions,
  load,
  parameterCount,
  specShapes,
  type WeightType,
} from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { vaeSpec } from '../../models/vae/index.ts';
import type { Param } from '../../nn/index.ts';
import { attach } from '../../selora/attach.ts';
import type { Place, Places } from '../../selora/methods/method.ts';
import { mapNetworks } from '../../selora/networks.ts';
import { adaptersFromFile } from './adapters.ts';
import { placeOfBase, SMALL_BASE } from './paths.ts';
import type { LoadedAdapters, ModelPlaces, Pipeline } from './pipeline.ts';

export type LoadedModel = {
  readonly pipeline: Pipeline;
  readonly base: Base;
  /** every layer that adapters can be on */
  readonly places: ModelPlaces;
  /** The adapter that is attached, when there is one. */
  readonly adapter?: { readonly file: AdapterFile; readonly adapters: LoadedAdapters };
};

export type WeightStorage = 'auto' | WeightType;

/** parameters from which `auto` stores halves */
const LARGE_MODEL = 200e6;

/** The storage of the frozen weights of a base. @throws CoreError when one is asked of a backend without it */
export function storageOf(base: Base, backend: Backend, wanted: WeightStorage = 'auto'): WeightType {
  if (wanted !== 'auto' && !backend.supports(wanted))
    throw new CoreError(`--weights ${wanted}: backend ${backend.name} has no ${wanted} storage; use --backend wasm`);
  if (wanted !== 'auto') return wanted;
  const specs: readonly Tree<Param>[] = Object.values(specsOf(base));
  const total = specs.reduce((n, spec) => n + parameterCount(spec), 0);
  return backend.supports('f16') && total > LARGE_MODEL ? 'f16' : 'f32';
}

/** The autoencoder is under no adapter and makes the pictures: where the others have 4 bits, it has 16. */
export const vaeStorage = (weights: WeightType): WeightType => (weights === 'nf4' ? 'f16' : weights);

export type LoadModelOptions = {
  /** An adapter file or folder to attach, or several with strengths: `FILE=0.7`; their changes add up. */
  readonly adapter?: string | readonly string[] | undefined;
  /** Strength of those named without one; default: 1. */
  readonly adapterStrength?: number;
  /** Folder of the configurations that belong to a single-file checkpoint. */
  readonly configFolder?: string | undefined;
  /** f64 runs on the cpu backend only. */
  readonly dtype?: 'f32' | 'f64';
  /** How frozen weights are stored. auto (default): f16 above 200 million parameters where the backend has it, else f32. */
  readonly weights?: WeightStorage;
  /** Leaves the weights on the host: for other work than running the model. Default: they are moved to the backend. */
  readonly keepOnHost?: boolean;
};

/** Opens a base; `configFolder` is for single files. @throws FileError naming file and field */
export const openBaseAt = (location: string, configFolder?: string): Promise<Base> =>
  openBase(placeOfBase(location), configFolder === undefined ? {} : { configFolder });

/** The tree of every network of a base as its configuration builds it. */
export const specsOf = ({ configs }: Base) => ({
  unet: unetSpec(configs.unet),
  vae: vaeSpec(configs.vae),
  text: textEncoderSpec(configs.textEncoder),
});

/** Names and shapes of every tensor of a base as its configuration builds them. */
export function shapesOf(base: Base): Readonly<Record<Part, Spec>> {
  const { unet, vae, text } = specsOf(base);
  return { unet: specShapes(unet), vae: specShapes(vae), text_encoder: specShapes(text) };
}

/**
 * Checks every tensor of a base against its configuration, names and shapes.
 * @throws FileError: one line that lists what is missing, unexpected and of the wrong shape
 */
export function checkBase(base: Base): void {
  const shapes = shapesOf(base);
  for (const part of PARTS) checkWeights(base.parts[part], shapes[part]);
}

/** The linear layers and convolutions of one network. */
export function placesIn(spec: Tree<Param>): Places {
  const shapes = specShapes(spec);
  return new Map(adaptablePaths(spec).map((p) => [p, shapes.get(`${p}.weight`) as unknown as Place]));
}
/** The linear layers and convolutions of U-Net and text encoder: what adapters can be put on. */
export function placesOf(base: Base): ModelPlaces {
  const specs = specsOf(base);
  return { unet: placesIn(specs.unet), text: placesIn(specs.text) };
}
/** The linear layers alone. */
export const linearsOf = (base: Base): ModelPlaces =>
  mapNetworks((places) => new Map([...places].filter(([, place]) => place.length === 2)), placesOf(base));

/** The tokenizer of a base; a single-file checkpoint has none of its own and means SD 1.5's, which ships here. */
export const tokenizerOf = async (base: Base): Promise<TokenizerFiles> =>
  base.tokenizer ?? readTokenizer(path.join(SMALL_BASE, 'tokenizer'), base.configs.textEncoder, base.pad);

/**
 * Reads adapters for a base, `FILE` or `FILE=0.7` each, and adds them up.
 * @throws FileError naming file and module that do not fit
 */
export async function readAdapters(
  base: Base,
  wanted: readonly string[],
  strength = 1,
): Promise<{ readonly name: string; readonly adapter: AdapterFile }> {
  const shares: Share[] = [];
  for (const text of wanted) {
    const split = splitStrength(text, strength, existsSync(text));
    const adapter = checkAdapter(split.path, await readAdapter(split.path, base.configs), base.parts);
    shares.push({ name: split.path, adapter, strength: split.strength });
  }
  return { name: shares[0].name, adapter: combine(shares) };
}

async function openAdapter(
  wanted: readonly string[],
  base: Base,
  places: ModelPlaces,
  { dtype = 'f32', adapterStrength }: LoadModelOptions,
) {
  const { name, adapter: file } = await readAdapters(base, wanted, adapterStrength);
  return { file, adapters: adaptersFromFile(file, places, { file: name, dtype }) };
}

/**
 * Opens a base (diffusers folder or single file) and loads it.
 * @throws FileError naming file and field of what is missing, of the wrong shape or not finite
 * @example const { pipeline } = await loadPipeline(SMALL_BASE, backend, { adapter: 'runs/first/adapter.safetensors' })
 */
export const loadPipeline = async (
  location: string,
  backend: Backend,
  options: LoadModelOptions = {},
): Promise<LoadedModel> => loadBase(await openBaseAt(location, options.configFolder), backend, options);

/**
 * Checks every tensor of an open base against its configuration, loads it, attaches the adapter and moves everything to
 * the backend.
 * @throws FileError naming file and field of what is missing, of the wrong shape or not finite
 */
export async function loadBase(
  base: Base,
  backend: Backend,
  options: Omit<LoadModelOptions, 'configFolder'> = {},
): Promise<LoadedModel> {
  const places = placesOf(base);
  const adapter =
    options.adapter === undefined ? undefined : await openAdapter([options.adapter].flat(), base, places, options);
  const specs = specsOf(base);
  const dtype = options.dtype ?? 'f32';
  const how: LoadOptions = {
    dtype,
    weights: dtype === 'f64' ? 'f32' : storageOf(base, backend, options.weights),
    ...(options.keepOnHost ? {} : { backend }),
  };
  const unet = await load(specs.unet, base.parts.unet, how);
  const text = await load(specs.text, base.parts.text_encoder, how);
  const vae = await load(specs.vae, base.parts.vae, { ...how, weights: vaeStorage(how.weights ?? 'f32') });
  const { configs } = base;
  const pipeline: Pipeline = {
    unet: adapter ? attach(unet, adapter.adapters.unet, adapter.adapters.scale, backend) : unet,
    text: adapter ? attach(text, adapter.adapters.text, adapter.adapters.scale, backend) : text,
    vae,
    configs: { unet: configs.unet, vae: configs.vae, text: configs.textEncoder },
    tokenizer: (await tokenizerOf(base)).tokenizer,
    schedule: makeSchedule(configs.scheduler),
  };
  return { pipeline, base, places, ...(adapter ? { adapter } : {}) };
}
