/**
 * Weights stored as halves (`--weights f16`) against the golden numbers. The tolerance is derived, not guessed: the same
 * weights rounded to halves go through the f64 reference, and how far that lies from the golden value is what storage
 * costs; the backend may add f32's own tolerance to it, no more.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { type Backend, cpuBackend, mapTree, read, type Tensor, tensor, valueAndGrad } from '../../core/index.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { readConfigs } from '../../models/io/base.ts';
import { halfToFloat } from '../../models/io/dtypes.ts';
import { openPart } from '../../models/io/part.ts';
import type { Part } from '../../models/names.ts';
import { load } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import { vaeDecode, vaeEncode, vaeSpec } from '../../models/vae/index.ts';
import { mse } from '../../nn/index.ts';
import {
  compared,
  distance,
  floats,
  integers,
  largest,
  type Precision,
  results,
  toChannelsFirst,
  toChannelsLast,
} from './distances.ts';
import { type GoldenCase, need, readGoldenJson, readGoldenTensors } from './golden.ts';

const errors = z.record(z.string(), z.number());
const schema = z.object({
  unet: z.record(z.string(), z.object({ float32_vs_float64_max_abs: errors, loss: z.number() })).default({}),
  vae: z.record(z.string(), z.object({ float32_vs_float64_max_abs: errors.optional() })).default({}),
  clip: z.object({ float32_vs_float64_max_abs: errors }).optional(),
});

/** What is compared, as a function of the parameters: golden names to values in the model's layout. */
type Probe<P> = (params: P, precision: Precision) => Readonly<Record<string, Tensor>>;

/** Stored halves, and everything else, as f64. */
async function widened<P>(params: P): Promise<P> {
  const wide = new Map<Tensor, Tensor>();
  const all: Tensor[] = [];
  mapTree((t: Tensor) => void all.push(t), params);
  for (const t of all) {
    const values = await read(t);
    const floats = t.dtype === 'f16' ? halfToFloat(values as Uint16Array) : values;
    wide.set(t, tensor(Float64Array.from(floats), t.shape, 'f64'));
  }
  return mapTree((t: Tensor) => wide.get(t), params);
}

/** Nothing on a backend without f16 storage, and nothing on the f64 reference, which has no use for it. */
export async function* verifyHalfStorage(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  if (!backend.supports('f16') || backend.supports('f64')) return;
  const json = await readGoldenJson(directory, 'models.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'models.safetensors'));
  const folder = join(directory, 'tiny-sd');
  const { configs } = await readConfigs(folder);
  const exact = cpuBackend();

  const weightsOf = async (part: Part) => (await openPart(join(folder, part), part)).source;
  async function* compare<P>(
    stored: P,
    float32: (name: string) => number | undefined,
    probe: Probe<P>,
  ): AsyncGenerator<GoldenCase> {
    const toFile = (x: Tensor): Tensor => (x.shape.length === 4 ? toChannelsFirst(x) : x);
    const run = async (params: P, precision: Precision, where: Backend) =>
      results(Object.fromEntries(Object.entries(probe(params, precision)).map(([k, x]) => [k, toFile(x)])), where);
    const wide = await widened(stored);
    const [rounded, ours] = [await run(wide, 'f64', exact), await run(stored, 'f32', backend)];
    for (const [name, values] of Object.entries(ours)) {
      const golden = need(tensors, name);
      const usual = compared(name, values, golden, { precision: 'f32', float32Error: float32(name) });
      const cost = distance(rounded[name]!, golden.data) / (largest(golden.data) || 1);
      yield {
        case: `f16 ${name}`,
        error: usual.error,
        tolerance: cost + usual.tolerance,
        why: `rounding the weights costs ${cost.toExponential(1)} in f64; and ${usual.why}`,
      };
    }
  }

  const at = (name: string, precision: Precision) => toChannelsLast(floats(need(tensors, name), precision));
  for (const [key, info] of Object.entries(json.unet)) {
    const name = `unet.${key}`;
    yield* compare(
      await load(unetSpec(configs.unet), await weightsOf('unet'), { weights: 'f16' }),
      (n) => info.float32_vs_float64_max_abs[n.slice(name.length + 1)],
      (params, precision) => {
        const inputs = {
          sample: at(`${name}.sample`, precision),
          context: floats(need(tensors, `${name}.encoder_hidden_states`), precision),
        };
        const t = integers(need(tensors, `${name}.timestep`));
        const run = (x: typeof inputs) => unet(params, configs.unet, x.sample, t, x.context);
        const [, g] = valueAndGrad((x: typeof inputs) => mse(run(x), at(`${name}.target`, precision)))(inputs);
        return {
          [`${name}.output`]: run(inputs),
          [`${name}.grad.sample`]: g.sample,
          [`${name}.grad.encoder_hidden_states`]: g.context,
        };
      },
    );
  }
  for (const [key, info] of Object.entries(json.vae)) {
    const name = `vae.${key}`;
    if (!tensors.has(`${name}.image`)) continue;
    yield* compare(
      await load(vaeSpec(configs.vae), await weightsOf('vae'), { weights: 'f16' }),
      (n) => info.float32_vs_float64_max_abs?.[n.slice(name.length + 1)],
      (params, precision) => {
        const { mean, logvar } = vaeEncode(params, configs.vae, at(`${name}.image`, precision));
        return {
          [`${name}.mean`]: mean,
          [`${name}.logvar`]: logvar,
          [`${name}.decoded`]: vaeDecode(params, configs.vae, at(`${name}.z`, precision)),
        };
      },
    );
  }
  if (!json.clip) return;
  const { last, pooled } = json.clip.float32_vs_float64_max_abs;
  yield* compare(
    await load(textEncoderSpec(configs.textEncoder), await weightsOf('text_encoder'), { weights: 'f16' }),
    (n) => (n.endsWith('pooler_output') ? pooled : last),
    (params) => {
      const { lastHiddenState, poolerOutput } = textEncoder(
        params,
        configs.textEncoder,
        integers(need(tensors, 'clip.input_ids')),
      );
      return { 'clip.last_hidden_state': lastHiddenState, 'clip.pooler_output': poolerOutput };
    },
  );
}
