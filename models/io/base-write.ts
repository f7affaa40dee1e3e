/** Writes a model folder in the diffusers layout, all at once: it is complete when its name appears. */
import path from 'node:path';
import { PARTS, type Part } from '../names.ts';
import { type AtomicOptions, createFolderAtomic, makeFolders, writeFileAtomic } from './atomic.ts';
import type { Base, ConfigFiles } from './base.ts';
import type { Json } from './json.ts';
import { type TensorOut, writeSafetensors } from './safetensors-write.ts';

/** Everything that a model folder is written from. */
export type BaseOut = {
  /** The configurations of the parts. */
  readonly configFiles: Omit<ConfigFiles, 'modelIndex'>;
  /** Bytes of those that were read from a folder and are to be written as they were. */
  readonly configBytes?: ReadonlyMap<string, Uint8Array>;
  /** `vocab.json`, `merges.txt`, `tokenizer_config.json` …: name → bytes. */
  readonly tokenizerFiles: ReadonlyMap<string, Uint8Array>;
  /** Of each part: name in the checkpoint → tensor. */
  readonly weights: Readonly<Record<Part, ReadonlyMap<string, TensorOut>>>;
};

/** Where diffusers and transformers look for the weights of a part. */
const WEIGHT_FILE: Readonly<Record<Part, string>> = {
  unet: 'diffusion_pytorch_model.safetensors',
  vae: 'diffusion_pytorch_model.safetensors',
  text_encoder: 'model.safetensors',
};

const CONFIG_KEY = { unet: 'unet', vae: 'vae', text_encoder: 'textEncoder' } as const;

/**
 * Writes `model` to `folder`, streamed tensor by tensor. Peak memory: one tensor.
 * @throws FileError if `folder` holds something already, or when the disk refuses; then nothing is left behind
 * @example await writeBase('merged', { ...filesOf(base), weights: { ...all, unet: mergedUnet } })
 */
export async function writeBase(folder: string, model: BaseOut, options: AtomicOptions = {}): Promise<void> {
  await createFolderAtomic(
    folder,
    async (temporary) => {
      const write = async (name: string, content: string | Uint8Array) => {
        await makeFolders(path.dirname(path.join(temporary, name)), options);
        await writeFileAtomic(path.join(temporary, name), content, options);
      };
      await write('model_index.json', text(modelIndex(model.configFiles.scheduler)));
      const config = (name: string, json: Json) => write(name, model.configBytes?.get(name) ?? text(json));
      await config('scheduler/scheduler_config.json', model.configFiles.scheduler);
      for (const [name, bytes] of model.tokenizerFiles) await write(`tokenizer/${name}`, bytes);
      for (const part of PARTS) {
        await config(`${part}/config.json`, model.configFiles[CONFIG_KEY[part]]);
        const file = path.join(temporary, part, WEIGHT_FILE[part]);
        // transformers refuses a file whose metadata do not say "pt".
        const metadata = new Map([['format', 'pt']]);
        await writeSafetensors(file, model.weights[part], metadata, options);
      }
    },
    options,
  );
}

/** Everything of an opened base but its weights, for writing it again. @throws RangeError without a tokenizer */
export function filesOf(base: Base): Omit<BaseOut, 'weights'> {
  if (base.tokenizer === undefined) throw new RangeError(`${base.path} has no tokenizer files to copy`);
  return { configFiles: base.configFiles, configBytes: base.configBytes, tokenizerFiles: base.tokenizer.raw };
}

/** Keys that transformers 5 takes as numbers with a point only; JSON has one kind of number and writes 1.0 as 1. */
const FLOATS = 'attention_dropout|dropout|initializer_factor|initializer_range|layer_norm_eps';
const WHOLE = new RegExp(`("(?:${FLOATS})": -?\\d+)(?=,?$)`, 'gm');

const text = (json: Json) => `${JSON.stringify(json, null, 2).replace(WHOLE, '$1.0')}\n`;

/** The parts that are there; a safety checker is not, and says so, or diffusers would look for its folder. */
function modelIndex(scheduler: Json): Json {
  const isObject = typeof scheduler === 'object' && scheduler !== null && '_class_name' in scheduler;
  return {
    _class_name: 'StableDiffusionPipeline',
    _diffusers_version: '0.6.0',
    feature_extractor: [null, null],
    requires_safety_checker: false,
    safety_checker: [null, null],
    scheduler: ['diffusers', isObject ? (scheduler._class_name ?? null) : 'PNDMScheduler'],
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
  };
}
