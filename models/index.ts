/** The public names of the models, in reading order. A blank line below each heading keeps the formatter from sorting across. */

// ── the three networks: a specification, a type, a function ────────────────────────────────────────────────────────

export {
  idsTensor,
  type TextEncoder,
  type TextEncoding,
  textContext,
  textEncoder,
  textEncoderSpec,
} from './clip/text-encoder.ts';
export { type UNet, type UNetOptions, unet, unetSpec } from './unet/index.ts';
export { type Posterior, type Vae, vaeDecode, vaeEncode, vaeSample, vaeSpec } from './vae/index.ts';

// ── what derives from a specification ──────────────────────────────────────────────────────────────────────────────

export {
  adaptablePaths,
  type LoadOptions,
  linearPaths,
  load,
  parameterCount,
  specEntries,
  specShapes,
  storedAs,
  toCheckpoint,
  type WeightType,
} from './spec.ts';
export type { Tap } from './tap.ts';

// ── configurations and names ───────────────────────────────────────────────────────────────────────────────────────

export type { ModelConfigs, TextEncoderConfig, UNetConfig, VaeConfig } from './config.ts';
export { fromKohya, type LdmNames, ldmNames, PARTS, type Part, toKohya } from './names.ts';
export { SD15_SCHEDULER, SD15_TEXT_ENCODER, SD15_UNET, SD15_VAE } from './sd15.ts';

// ── texts to ids ───────────────────────────────────────────────────────────────────────────────────────────────────

export {
  CLIP_TOKENIZER,
  createTokenizer,
  type Encoding,
  type Tokenizer,
  type TokenizerConfig,
} from './clip/tokenizer.ts';

// ── noise schedules and samplers ───────────────────────────────────────────────────────────────────────────────────

export {
  addNoise,
  createSampler,
  makeSchedule,
  type RunOptions,
  runSampler,
  SAMPLER_NAMES,
  type Sampler,
  type SamplerName,
  type SamplerOptions,
  type SamplerState,
  type Samples,
  type Schedule,
  type SchedulerConfig,
  trainingTarget,
} from './schedulers/index.ts';

// ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────

export { checkAdapter } from './io/adapter-check.ts';
export { type AdapterFile, type AdapterModule, deltaWeight, readAdapter } from './io/adapter-file.ts';
export { padRank } from './io/adapter-pad.ts';
export { type ResizedModule, resizeRank } from './io/adapter-resize.ts';
export { type AdapterForm, writeAdapter } from './io/adapter-write.ts';
export { type Base, type OpenOptions, openBase } from './io/base.ts';
export { type BaseOut, filesOf, writeBase } from './io/base-write.ts';
export { FileError } from './io/error.ts';
export { openSafetensors, type Safetensors, type TensorInfo } from './io/safetensors.ts';
export { type TensorOut, writeSafetensors } from './io/safetensors-write.ts';
export { checkWeights, copyWeights, type Weight, type WeightSource } from './io/weights.ts';
