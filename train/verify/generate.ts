/**
 * Checks a whole generation of a golden directory (`schedulers.json`, entry `generate`): prompt → ids → context → model
 * calls with guidance → latents after every call → decoded picture.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { type Backend, read, tensor } from '../../core/index.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { openBase } from '../../models/io/base.ts';
import {
  createSampler,
  guide,
  makeSchedule,
  parseSchedulerConfig,
  runSampler,
  type Samples,
} from '../../models/schedulers/index.ts';
import { load } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { vaeSpec } from '../../models/vae/index.ts';
import { decodeProgram, denoiseProgram } from '../model/programs.ts';
import { compared, floats, integers, precisionOf, results, toChannelsFirst, toChannelsLast } from './distances.ts';
import { type GoldenCase, need, readGoldenJson, readGoldenTensors } from './golden.ts';
import { readVocabulary } from './tokenizer.ts';

export const GENERATE_FILES = ['schedulers.json', 'schedulers.safetensors', 'tiny-sd'] as const;

const errors = z.object({ latents: z.number(), decoded: z.number() });
const schema = z.object({
  settings: z.record(z.string(), z.unknown()),
  generate: z
    .object({
      prompt: z.string(),
      negative_prompt: z.string().default(''),
      guidance_scale: z.number(),
      steps: z.int().min(1).max(1000),
      float32_vs_float64_max_abs: z.record(z.string(), errors).default({}),
    })
    .optional(),
});
const SAMPLERS = ['pndm', 'ddim'] as const;

/** Nothing where the directory has no generation. @throws Error one line: a file or tensor is missing or malformed */
export async function* verifyGenerate(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const { generate: golden, settings } = await readGoldenJson(directory, 'schedulers.json', schema);
  if (!golden) return;
  const tensors = await readGoldenTensors(join(directory, 'schedulers.safetensors'));
  const { configs, parts } = await openBase(join(directory, 'tiny-sd'));
  const precision = precisionOf(backend);
  const text = await load(textEncoderSpec(configs.textEncoder), parts.text_encoder, { dtype: precision });
  const net = await load(unetSpec(configs.unet), parts.unet, { dtype: precision });
  const vae = await load(vaeSpec(configs.vae), parts.vae, { dtype: precision });

  const wanted = need(tensors, 'generate.input_ids');
  const { encode } = await readVocabulary(directory, wanted.shape[1]!);
  const ids = [golden.negative_prompt, golden.prompt].flatMap((prompt) => [...encode(prompt).ids]);
  yield {
    case: 'generate ids of the prompts',
    error: wanted.data.filter((id, i) => id !== ids[i]).length,
    tolerance: 0,
    why: 'ids are equal or wrong',
  };
  const { context } = await results(
    { context: textEncoder(text, configs.textEncoder, integers(wanted)).lastHiddenState },
    backend,
  );
  // the text encoder's own float32 error in the models file of the same set is 9.6e-7
  yield compared('generate context', context, need(tensors, 'generate.context'), { precision, float32Error: 1e-6 });

  const first = need(tensors, 'generate.latents');
  const start = toChannelsLast(floats(first, precision));
  const [, h, w, c] = start.shape as [number, number, number, number];
  const denoise = denoiseProgram(backend, configs.unet);
  const decode = decodeProgram(backend, configs.vae);
  const asTensor = (x: ArrayLike<number>, shape: readonly number[]) =>
    tensor(precision === 'f64' ? Float64Array.from(x) : Float32Array.from(x), shape, precision);
  const both = asTensor(context, [2, wanted.shape[1]!, configs.textEncoder.hidden_size]);
  const each = h * w * c;
  const model = async (input: Samples, t: number): Promise<Samples> => {
    const twice = new Float64Array(2 * each);
    twice.set(input);
    twice.set(input, each);
    const y = await read(denoise(net, asTensor(twice, [2, h, w, c]), asTensor(Float64Array.of(t, t), [2]), both));
    const half = (i: number) => Float64Array.from(y.subarray(i * each, (i + 1) * each));
    return guide(half(0), half(1), golden.guidance_scale);
  };
  const schedule = makeSchedule(parseSchedulerConfig(settings, 'schedulers.json settings'));
  const { x0 } = await results({ x0: start }, backend);
  for (const name of SAMPLERS) {
    const expected = tensors.get(`generate.${name}.latents`);
    if (!expected) continue;
    const visited: Samples[] = [];
    const sampler = createSampler(name, schedule, golden.steps);
    const noise = precision === 'f64' ? Float64Array.from(x0) : Float32Array.from(x0);
    const last = await runSampler(sampler, model, noise, { onStep: (_k, _n, x) => visited.push(x) });
    const stacked = tensor(
      visited.flatMap((x) => [...x]),
      [visited.length, h, w, c],
      precision,
    );
    const decoded = toChannelsFirst(decode(vae, asTensor(last, [1, h, w, c])));
    const values = await results({ latents: toChannelsFirst(stacked), decoded }, backend);
    const float32 = golden.float32_vs_float64_max_abs[name];
    yield compared(`generate ${name}: latents of ${visited.length} calls`, values.latents, expected, {
      precision,
      float32Error: float32?.latents,
      f64: { tolerance: 1e-9, why: 'f64, errors of several model calls with guidance' },
    });
    const picture = tensors.get(`generate.${name}.decoded`);
    if (picture)
      yield compared(`generate ${name}: decoded picture`, values.decoded, picture, {
        precision,
        float32Error: float32?.decoded,
        f64: { tolerance: 5e-7, why: "stored as f32; the reference's autoencoder takes its softmax in float32" },
      });
  }
}
