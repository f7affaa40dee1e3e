/**
 * Opens a base model: a folder in the diffusers layout, or an original single-file checkpoint.
 * Reading order: `openBase`, then `part.ts` (weight files of a folder), `ldm.ts` (single file), `weights.ts`.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import {
  checkTogether,
  type ModelConfigs,
  modelIndexSchema,
  parseConfig,
  parseScheduler,
  textEncoderSchema,
  unetSchema,
  vaeSchema,
} from '../config.ts';
import { PARTS, type Part } from '../names.ts';
import { SD2_PAD, SD2_TEXT_ENCODER, sd2Scheduler, sd2Unet } from '../sd2.ts';
import { SD15_MODEL_INDEX, SD15_SCHEDULER, SD15_TEXT_ENCODER, SD15_UNET, SD15_VAE } from '../sd15.ts';
import { asFileError, FileError, quoted, systemCode } from './error.ts';
import { decodeText, type Json, parseJson, readBytes } from './json.ts';
import { markersOf, openLdm } from './ldm.ts';
import { openPart } from './part.ts';
import { conversionHint } from './safetensors-header.ts';
import { readTokenizer, type TokenizerFiles } from './tokenizer-files.ts';
import type { WeightSource } from './weights.ts';

/** The JSON files of a model as they are, keys in the files' own order. */
export type ConfigFiles = {
  readonly modelIndex: Json;
  readonly unet: Json;
  readonly vae: Json;
  readonly textEncoder: Json;
  readonly scheduler: Json;
};

/** An opened base model: everything is known but the values of its weights, which are read when asked for. */
export type Base = {
  /** The folder or file, as it was given. */
  readonly path: string;
  /** Its configurations, checked. */
  readonly configs: ModelConfigs;
  /** The same as they stand in the files. */
  readonly configFiles: ConfigFiles;
  /** The same files' bytes, by path in the folder: written again they keep the spelling of their numbers. */
  readonly configBytes: ReadonlyMap<string, Uint8Array>;
  /** Undefined for a single file opened without a folder: CLIP's own vocabulary is meant. */
  readonly tokenizer: TokenizerFiles | undefined;
  /** What CLIP's vocabulary pads a text with then, where it is not the end symbol. */
  readonly pad?: string;
  /** The weights of each network. */
  readonly parts: Readonly<Record<Part, WeightSource>>;
  /** SHA-256 (hex) over names, sizes and bytes of the weight files. Read once, at the first call. */
  readonly hash: () => Promise<string>;
};

/** What belongs to a base and does not lie in it. */
export type OpenOptions = {
  /** For a single file: a folder with the configurations (and tokenizer) that belong to it. Default: SD 1.5's own. */
  readonly configFolder?: string;
};

/**
 * Opens a base model. Reads configurations and headers; weights are read when asked for.
 * Names and shapes are then checked with `checkWeights(base.parts.unet, spec)`.
 * @throws FileError naming file and field
 * @example const base = await openBase('models/small-base'); await base.parts.unet.get('conv_in.weight').read()
 */
export async function openBase(location: string, options: OpenOptions = {}): Promise<Base> {
  const info = await stat(location).catch((error) => {
    throw asFileError(error, location);
  });
  return info.isDirectory() ? openFolder(location) : openSingleFile(location, options);
}

async function openFolder(folder: string): Promise<Base> {
  const there = await Promise.all(['model_index.json', ...PARTS].map((name) => exists(path.join(folder, name))));
  if (!there.includes(true)) {
    const pickle = (await readdir(folder)).find((name) => /\.(bin|ckpt|pt|pth|pkl)$/i.test(name));
    const hint = pickle === undefined ? '' : `; there is only ${quoted(pickle)}: ${conversionHint(pickle)}`;
    throw new FileError(folder, '', `is not a model: no model_index.json, unet, vae and text_encoder in it${hint}`);
  }
  const { configs, configFiles, configBytes } = await readConfigs(folder);
  const tokenizer = await readTokenizer(path.join(folder, 'tokenizer'), configs.textEncoder);
  const unet = await openPart(path.join(folder, 'unet'), 'unet');
  const vae = await openPart(path.join(folder, 'vae'), 'vae');
  const text = await openPart(path.join(folder, 'text_encoder'), 'text_encoder');
  const files = [unet, vae, text].flatMap((part) => part.files);
  return {
    path: folder,
    configs,
    configFiles,
    configBytes,
    tokenizer,
    parts: { unet: unet.source, vae: vae.source, text_encoder: text.source },
    hash: once(() => hashFiles(files.map((file) => [path.relative(folder, file).split(path.sep).join('/'), file]))),
  };
}

async function openSingleFile(file: string, options: OpenOptions): Promise<Base> {
  const folder = options.configFolder;
  const found = folder === undefined ? await singleFileConfigs(file) : await readConfigs(folder);
  const tokenizer =
    folder === undefined ? undefined : await readTokenizer(path.join(folder, 'tokenizer'), found.configs.textEncoder);
  const parts = await openLdm(file, found.configs);
  return {
    path: file,
    ...found,
    tokenizer,
    parts,
    hash: once(() => hashFiles([['checkpoint', file]])),
  };
}

type Configured = Pick<Base, 'configs' | 'configFiles' | 'configBytes' | 'pad'>;

const SD2_V = sd2Scheduler('v_prediction');

/** The configurations of SD 1.5 or, by its text encoder, SD 2.x, with what the file says about its noise schedule. */
async function singleFileConfigs(file: string): Promise<Configured> {
  if (!/\.safetensors$/i.test(file)) return SD15;
  const { openClip, prediction, ztsnr } = await markersOf(file);
  const v = prediction === 'v_prediction';
  const zero: { readonly [key: string]: Json } =
    v && ztsnr ? { rescale_betas_zero_snr: true, timestep_spacing: 'trailing' } : {};
  const name = (part: string) => `${file}: ${part}`;
  if (!openClip) {
    if (!v) return SD15;
    return configured({ ...SD15.configFiles, scheduler: { ...SD2_V, ...zero } }, name);
  }
  // The weights do not tell the models of 768 pixels, which predict v, from those of 512. Files go by these names.
  const small = prediction === 'epsilon' || (prediction === undefined && /512|base/i.test(path.basename(file)));
  return {
    ...configured(
      {
        ...SD15.configFiles,
        unet: sd2Unet(small ? 64 : 96),
        textEncoder: SD2_TEXT_ENCODER,
        scheduler: { ...sd2Scheduler(small ? 'epsilon' : 'v_prediction'), ...zero },
      },
      name,
    ),
    pad: SD2_PAD,
  };
}

/** Checked configurations from their JSON. */
function configured(
  files: ConfigFiles,
  file: (name: string) => string,
  configBytes: ReadonlyMap<string, Uint8Array> = new Map(),
): Configured {
  parseConfig(modelIndexSchema, files.modelIndex, file('model_index.json'));
  const configs: ModelConfigs = {
    unet: parseConfig(unetSchema, files.unet, file('unet/config.json')),
    vae: parseConfig(vaeSchema, files.vae, file('vae/config.json')),
    textEncoder: parseConfig(textEncoderSchema, files.textEncoder, file('text_encoder/config.json')),
    scheduler: parseScheduler(files.scheduler, file('scheduler/scheduler_config.json')),
  };
  checkTogether(configs, (part) => file(`${part}/config.json`));
  return { configs, configFiles: files, configBytes };
}

const SD15: Configured = configured(
  {
    modelIndex: SD15_MODEL_INDEX,
    unet: SD15_UNET,
    vae: SD15_VAE,
    textEncoder: SD15_TEXT_ENCODER,
    scheduler: SD15_SCHEDULER,
  },
  (name) => `SD 1.5's ${name}`,
);

const MAX_CONFIG_BYTES = 1 << 20;

/** The configurations of a folder in the diffusers layout; the weights need not be there. */
export async function readConfigs(folder: string): Promise<Configured> {
  const file = (name: string) => path.join(folder, name);
  const configBytes = new Map<string, Uint8Array>();
  const read = async (name: string): Promise<Json> => {
    const bytes = await readBytes(file(name), MAX_CONFIG_BYTES);
    configBytes.set(name, bytes);
    return parseJson(decodeText(bytes, file(name)), file(name));
  };
  const files: ConfigFiles = {
    modelIndex: (await exists(file('model_index.json'))) ? await read('model_index.json') : SD15_MODEL_INDEX,
    unet: await read('unet/config.json'),
    vae: await read('vae/config.json'),
    textEncoder: await read('text_encoder/config.json'),
    scheduler: await read('scheduler/scheduler_config.json'),
  };
  return configured(files, file, configBytes);
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
    throw asFileError(error, file);
  }
}

/** The value of the first call, for ever; a failed call is tried again. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let value: Promise<T> | undefined;
  return () => {
    value ??= make().catch((error) => {
      value = undefined;
      throw error;
    });
    return value;
  };
}

/** SHA-256 over label, size and bytes of every file, in the order of the labels. */
async function hashFiles(files: readonly (readonly [string, string])[]): Promise<string> {
  const hash = createHash('sha256');
  for (const [label, file] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
    try {
      hash.update(`${label}\n${(await stat(file)).size}\n`);
      for await (const chunk of createReadStream(file, { highWaterMark: 4 << 20 })) hash.update(chunk);
    } catch (error) {
      throw asFileError(error, file);
    }
  }
  return hash.digest('hex');
}
