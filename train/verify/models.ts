/**
 * Checks whole models against a golden directory (`models.*` with the weights of `tiny-sd/`): outputs, losses, gradients
 * by inputs and by every parameter. Files have channels first, models channels last.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { add, type Backend, entries, mul, permute, sum, type Tensor, take, valueAndGrad } from '../../core/index.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import type { ModelConfigs } from '../../models/config.ts';
import { readConfigs } from '../../models/io/base.ts';
import { openPart } from '../../models/io/part.ts';
import type { WeightSource } from '../../models/io/weights.ts';
import type { Part } from '../../models/names.ts';
import { load } from '../../models/spec.ts';
import { type UNet, unet, unetSpec } from '../../models/unet/index.ts';
import { type Vae, vaeDecode, vaeEncode, vaeSample, vaeSpec } from '../../models/vae/index.ts';
import { mse, upsampleNearest } from '../../nn/index.ts';
import {
  compared,
  floats,
  integers,
  type Limits,
  largest,
  precisionOf,
  results,
  toChannelsFirst,
  toChannelsLast,
} from './distances.ts';
import { type GoldenCase, type GoldenTensors, need, readGoldenJson, readGoldenTensors } from './golden.ts';
import { compareNorms, gradientScale, type ParameterGradients, parameterGradients } from './parameter-gradients.ts';

export const MODEL_FILES = ['models.json', 'models.safetensors', 'tiny-sd'] as const;

const errors = z.record(z.string(), z.number());
const unetCase = z.object({
  float32_vs_float64_max_abs: errors,
  float32_vs_float64_param_grad_rel_l2_max: z.number().optional(),
  loss: z.number(),
  param_grad: parameterGradients,
});
const vaeCase = z.object({
  float32_vs_float64_max_abs: errors.optional(),
  scaling_factor: z.number().optional(),
  encode_param_grad: parameterGradients.optional(),
  decode_param_grad: parameterGradients.optional(),
});
const schema = z.object({
  unet: z.record(z.string(), unetCase).default({}),
  vae: z.record(z.string(), vaeCase).default({}),
  clip: z.object({ float32_vs_float64_max_abs: errors, param_grad: parameterGradients }).optional(),
});
type Golden = {
  readonly tensors: GoldenTensors;
  readonly configs: ModelConfigs;
  /** weights of one network; a directory may leave out those it has no cases for */
  readonly weights: (part: Part) => Promise<WeightSource>;
  readonly backend: Backend;
  /** what the reference's float32 encoder is off by, relative; for cases that do not say */
  readonly encoderError: number;
};

/** @throws Error one line: a file or tensor is missing or malformed */
export async function* verifyModels(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const json = await readGoldenJson(directory, 'models.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'models.safetensors'));
  const folder = join(directory, 'tiny-sd');
  const weights = async (part: Part) => (await openPart(join(folder, part), part)).source;
  const known = Object.entries(json.vae).flatMap(([name, { float32_vs_float64_max_abs: error }]) =>
    ['mean', 'logvar'].map((what) => (error?.[what] ?? 0) / largest(need(tensors, `vae.${name}.${what}`).data)),
  );
  const encoderError = Math.max(1.5e-7, ...known);
  const golden: Golden = { tensors, configs: (await readConfigs(folder)).configs, weights, backend, encoderError };
  for (const [name, info] of Object.entries(json.unet)) yield* verifyUnet(golden, `unet.${name}`, info);
  for (const [name, info] of Object.entries(json.vae)) yield* verifyVae(golden, `vae.${name}`, info);
  if (json.clip) yield* verifyClip(golden, json.clip);
}

const float = ({ tensors, backend }: Golden, name: string): Tensor => floats(need(tensors, name), precisionOf(backend));
const picture = (golden: Golden, name: string): Tensor => toChannelsLast(float(golden, name));
/** A model's value in the file's layout. */
const toFile = (x: Tensor): Tensor => (x.shape.length === 4 ? toChannelsFirst(x) : x);
const withPrefix = <T>(prefix: string, record: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [prefix + key, value]));

async function* verifyUnet(golden: Golden, name: string, info: z.output<typeof unetCase>): AsyncGenerator<GoldenCase> {
  const { configs, tensors, backend } = golden;
  const config = configs.unet;
  const precision = precisionOf(backend);
  const params = await load(unetSpec(config), await golden.weights('unet'), { dtype: precision });
  const timesteps = integers(need(tensors, `${name}.timestep`));
  const inputs = { sample: picture(golden, `${name}.sample`), context: float(golden, `${name}.encoder_hidden_states`) };
  const target = picture(golden, `${name}.target`);
  const run = (p: UNet, x: typeof inputs) => unet(p, config, x.sample, timesteps, x.context);

  const [loss, gradient] = valueAndGrad((x: { params: UNet; inputs: typeof inputs }) =>
    mse(run(x.params, x.inputs), target),
  )({ params, inputs });
  const values = await results(
    {
      output: toFile(run(params, inputs)),
      loss,
      'grad.sample': toFile(gradient.inputs.sample),
      'grad.encoder_hidden_states': gradient.inputs.context,
      ...withPrefix('grad.', inFileLayout(gradient.params)),
    },
    backend,
  );
  const float32 = info.float32_vs_float64_max_abs;
  for (const what of ['output', 'grad.sample', 'grad.encoder_hidden_states'] as const)
    yield compared(`${name}.${what}`, values[what]!, need(tensors, `${name}.${what}`), {
      precision,
      float32Error: float32[what],
    });
  yield compared(
    `${name}.loss`,
    values.loss!,
    { data: Float64Array.of(info.loss), dtype: 'F64' },
    {
      precision,
      float32Error: float32.output,
    },
  );
  const gradientError = info.float32_vs_float64_param_grad_rel_l2_max;
  yield* verifyGradients(golden, `${name}.grad`, values, { precision, gradientError }, info.param_grad);
}

async function* verifyVae(golden: Golden, name: string, info: z.output<typeof vaeCase>): AsyncGenerator<GoldenCase> {
  const { configs, tensors, backend } = golden;
  const config = configs.vae;
  const precision = precisionOf(backend);
  // that softmax's roundings are part of the float32 run's error, which is known for other weights and depths too
  const relative = (what: string): number => {
    const expected = tensors.get(`${name}.${what}`);
    return expected ? (info.float32_vs_float64_max_abs?.[what] ?? 0) / (largest(expected.data) || 1) : 0;
  };
  const worst = Math.max(...['mean', 'logvar', 'decoded', 'grad.image', 'grad.z'].map(relative));
  const limits = (what: string): Limits => ({
    precision,
    float32Error: info.float32_vs_float64_max_abs?.[what],
    gradientError: worst,
    f64: {
      tolerance: Math.max(5e-7, relative(what) || worst),
      why: "the reference's autoencoder takes its softmax in float32 even in its f64 run",
    },
  });
  const params: Vae = await load(vaeSpec(config), await golden.weights('vae'), { dtype: precision });
  if (!tensors.has(`${name}.image`)) {
    // `image_28`: a large picture whose pixels are each repeated 8 times, stored small
    const stored = [...tensors.keys()].find((key) => key.startsWith(`${name}.image_`)) ?? `${name}.image`;
    const small = picture(golden, stored);
    const image = upsampleNearest(small, [8 * small.shape[1]!, 8 * small.shape[2]!]);
    const { mean, logvar } = vaeEncode(params, config, image);
    const values = await results({ mean: toFile(mean), logvar: toFile(logvar) }, backend);
    for (const what of ['mean', 'logvar'] as const)
      yield compared(`${name}.${what}`, values[what], need(tensors, `${name}.${what}`), {
        ...limits(what),
        float32Error: golden.encoderError * largest(need(tensors, `${name}.${what}`).data),
      });
    return;
  }
  const weigh = (x: Tensor, what: string) => sum(mul(x, picture(golden, `${name}.cotangent.${what}`)));
  const image = picture(golden, `${name}.image`);
  const z0 = picture(golden, `${name}.z`);
  const encode = valueAndGrad((x: { params: Vae; image: Tensor }) => {
    const { mean, logvar } = vaeEncode(x.params, config, x.image);
    return add(weigh(mean, 'mean'), weigh(logvar, 'logvar'));
  })({ params, image })[1];
  const decode = valueAndGrad((x: { params: Vae; z: Tensor }) => weigh(vaeDecode(x.params, config, x.z), 'decoded'))({
    params,
    z: z0,
  })[1];
  const posterior = vaeEncode(params, config, image);
  const latents = mul(vaeSample(posterior, picture(golden, `${name}.noise`)), info.scaling_factor ?? 1);
  const values = await results(
    {
      mean: toFile(posterior.mean),
      logvar: toFile(posterior.logvar),
      latents: toFile(latents),
      decoded: toFile(vaeDecode(params, config, z0)),
      'grad.image': toFile(encode.image),
      'grad.z': toFile(decode.z),
      ...withPrefix('grad_encode.', inFileLayout(encode.params)),
      ...withPrefix('grad_decode.', inFileLayout(decode.params)),
    },
    backend,
  );
  for (const what of ['mean', 'logvar', 'latents', 'decoded', 'grad.image', 'grad.z'] as const)
    yield compared(`${name}.${what}`, values[what]!, need(tensors, `${name}.${what}`), {
      ...limits(what === 'latents' ? 'mean' : what),
    });
  if (info.encode_param_grad)
    yield* verifyGradients(golden, `${name}.grad_encode`, values, limits(''), info.encode_param_grad);
  if (info.decode_param_grad)
    yield* verifyGradients(golden, `${name}.grad_decode`, values, limits(''), info.decode_param_grad);
}

async function* verifyClip(
  golden: Golden,
  info: NonNullable<z.output<typeof schema>['clip']>,
): AsyncGenerator<GoldenCase> {
  const { configs, tensors, backend } = golden;
  const config = configs.textEncoder;
  const precision = precisionOf(backend);
  const params = await load(textEncoderSpec(config), await golden.weights('text_encoder'), { dtype: precision });
  const ids = integers(need(tensors, 'clip.input_ids'));
  const encoded = textEncoder(params, config, ids);
  const cotangent = float(golden, 'clip.cotangent');
  const gradient = valueAndGrad((p: typeof params) => sum(mul(textEncoder(p, config, ids).lastHiddenState, cotangent)))(
    params,
  )[1];
  const rows = integers(need(tensors, 'clip.grad.token_embedding.ids'));
  const values = await results(
    {
      last_hidden_state: encoded.lastHiddenState,
      pooler_output: encoded.poolerOutput,
      ...withPrefix('hidden_states.', Object.fromEntries(encoded.hiddenStates.entries())),
      'short.last_hidden_state': textEncoder(params, config, integers(need(tensors, 'clip.short.input_ids')))
        .lastHiddenState,
      'grad.token_embedding.rows': take(gradient.text_model.embeddings.token_embedding.weight, rows, 0),
      ...withPrefix('grad.', inFileLayout(gradient)),
    },
    backend,
  );
  const { last, pooled, short } = info.float32_vs_float64_max_abs;
  const float32 = (what: string) =>
    what === 'pooler_output'
      ? pooled
      : what === 'short.last_hidden_state'
        ? short
        : what.startsWith('grad.')
          ? undefined
          : last;
  for (const [what, value] of Object.entries(values)) {
    const expected = tensors.get(`clip.${what}`);
    if (expected && !what.startsWith('grad.text_model'))
      yield compared(`clip.${what}`, value, expected, { precision, float32Error: float32(what) });
  }
  yield* verifyGradients(golden, 'clip.grad', values, { precision }, info.param_grad);
}

/** Parameter gradients in the order of axes that files have. */
function inFileLayout(params: Parameters<typeof entries<Tensor>>[0]): Record<string, Tensor> {
  return Object.fromEntries(
    entries<Tensor>(params).map(([path, g]) => [path, g.shape.length === 4 ? permute(g, [3, 2, 0, 1]) : g]),
  );
}

/** What lies beside the parameters' gradients under the same prefix, compared elsewhere. */
const NOT_PARAMETERS = /^(sample|encoder_hidden_states|token_embedding\.(ids|rows))$|_f32$/;

/** Norm and sum of every parameter's gradient, and the gradients stored whole. */
async function* verifyGradients(
  { tensors }: Golden,
  name: string,
  values: Readonly<Record<string, ArrayLike<number>>>,
  limits: Limits,
  norms: ParameterGradients,
): AsyncGenerator<GoldenCase> {
  const prefix = `${name.slice(name.lastIndexOf('.') + 1)}.`;
  const own = new Map(
    Object.entries(values)
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), value]),
  );
  yield* compareNorms(name, own, norms, limits);
  const scaleOf = gradientScale(norms);
  for (const [stored, expected] of tensors) {
    const path = stored.slice(name.length + 1);
    if (!stored.startsWith(`${name}.`) || NOT_PARAMETERS.test(path)) continue;
    const actual = own.get(path);
    if (!actual) throw new Error(`golden tensor ${stored}: the model has no parameter ${path}`);
    const l2 = norms[path]?.l2 ?? Math.hypot(...expected.data);
    // one that is zero but for rounding is held to the size of the others
    const scale = scaleOf(l2) === l2 ? {} : { scale: scaleOf(l2) };
    yield compared(stored, actual, expected, { ...limits, ...scale });
  }
}
