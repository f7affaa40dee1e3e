/** The shipped base in a page: its weights as files of the lab's folder, the rest as the build wrote it down. */
import type { Backend } from '../../../core/index.ts';
import { textEncoderSpec } from '../../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../../models/clip/tokenizer.ts';
import type { ModelConfigs } from '../../../models/config.ts';
import { parseSafetensors } from '../../../models/io/safetensors.ts';
import { type WeightSource, weightOf, weightSource } from '../../../models/io/weights.ts';
import { makeSchedule, type Schedule } from '../../../models/schedulers/index.ts';
import { load } from '../../../models/spec.ts';
import { unetSpec } from '../../../models/unet/index.ts';
import { type Vae, vaeSpec } from '../../../models/vae/index.ts';
import type { Place } from '../../../selora/methods/method.ts';
import type { RunConfig } from '../../config/config.ts';
import { phantomAt } from '../../data/made/phantoms.ts';
import { toModelPixels } from '../../data/pictures/grey.ts';
import { type Encoded, encodePairs } from '../../model/encode.ts';
import type { ModelPlaces } from '../../model/pipeline.ts';
import { vaeFactor } from '../../model/programs.ts';
import type { Frozen } from '../../step/state.ts';
import type { Tell } from './protocol.ts';

/** Reads a file of the lab's folder. */
export type ReadFile = (name: string) => Promise<Uint8Array>;

/** What the build writes down of the base and of a default run. */
export interface BaseFile {
  readonly configs: ModelConfigs;
  readonly run: RunConfig;
  /** pixels along a side */
  readonly side: number;
  /** where adapters are, in the order of the model */
  readonly places: { readonly unet: readonly [string, Place][]; readonly text: readonly [string, Place][] };
  /** held-out reports of the built-in phantoms with their token ids */
  readonly pairs: readonly { readonly text: string; readonly ids: readonly number[] }[];
  /** ids of no text */
  readonly empty: readonly number[];
  /** of all that is read of the base */
  readonly hash: string;
}
/** the part of the built-in pairs that is shown */
export const HELD_OUT = 'test';
/** The weights, by the names they have in the lab's folder. */
export const WEIGHT_FILES = {
  unet: 'base/unet.safetensors',
  vae: 'base/vae.safetensors',
  text_encoder: 'base/text_encoder.safetensors',
} as const;
export const BASE_FILE = 'base/base.json';

/** A base made ready: what a run has when its loop begins. */
export interface Ready {
  readonly configs: ModelConfigs;
  readonly run: RunConfig;
  readonly side: number;
  readonly frozen: Frozen;
  readonly vae: Vae;
  readonly schedule: Schedule;
  readonly places: ModelPlaces;
  readonly pairs: readonly Encoded[];
  /** grey, 0 to 1 */
  readonly films: readonly Float32Array[];
  readonly empty: Int32Array;
  readonly hash: string;
}

/** Reads the base and encodes the held-out reports, as a run does before its loop. */
export async function readBase(read: ReadFile, backend: Backend, tell: Tell): Promise<Ready> {
  const told = JSON.parse(new TextDecoder().decode(await read(BASE_FILE))) as BaseFile;
  const source = async (name: keyof typeof WEIGHT_FILES): Promise<WeightSource> => {
    const file = parseSafetensors(await read(WEIGHT_FILES[name]), WEIGHT_FILES[name]);
    return weightSource(
      WEIGHT_FILES[name],
      [...file.tensors.keys()].map((weight) => weightOf(file, weight)),
    );
  };
  const { configs, run, side } = told;
  tell('reading the base');
  const unet = await load(unetSpec(configs.unet), await source('unet'), { backend });
  const text = await load(textEncoderSpec(configs.textEncoder), await source('text_encoder'), { backend });
  const vae = await load(vaeSpec(configs.vae), await source('vae'), { backend });
  tell('encoding the pictures');
  const phantoms = told.pairs.map((_, i) => phantomAt(run.seed, HELD_OUT, i, side));
  const ids = new Map(told.pairs.map((p) => [p.text, Int32Array.from(p.ids)]));
  const tokens = { encode: (report: string) => ({ ids: ids.get(report)!, cut: false }) } as Pick<Tokenizer, 'encode'>;
  const pairs = await encodePairs(
    backend,
    vae,
    configs.vae,
    tokens as Tokenizer,
    phantoms.map((p, i) => ({
      id: `phantom-${HELD_OUT}-${i}`,
      text: p.report,
      pixels: async () => toModelPixels(p.pixels),
    })),
    side,
  );
  return {
    configs,
    run,
    side,
    frozen: { unet, text },
    vae,
    schedule: makeSchedule(configs.scheduler),
    places: { unet: new Map(told.places.unet), text: new Map(told.places.text) },
    pairs,
    films: phantoms.map((p) => p.pixels),
    empty: Int32Array.from(told.empty),
    hash: told.hash,
  };
}

/** Size of a latent, [h, w, c]. */
export function latentOf({ side, configs }: Ready): readonly [number, number, number] {
  const along = side / vaeFactor(configs.vae);
  return [along, along, configs.vae.latent_channels];
}
