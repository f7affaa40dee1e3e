/** Runs the U-Net with foreign adapter files in place: outputs against those stored in `interchange/effective.safetensors`. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { add, type Backend, tensor } from '../../core/index.ts';
import { type AdapterModule, deltaWeight, readAdapter } from '../../models/io/adapter-file.ts';
import { readConfigs } from '../../models/io/base.ts';
import { openPart } from '../../models/io/part.ts';
import { load } from '../../models/spec.ts';
import { type UNet, unet, unetSpec } from '../../models/unet/index.ts';
import { type AdaptedLinear, toModelLayout } from '../../nn/index.ts';
import { updateAt } from '../../selora/attach.ts';
import {
  compared,
  floats,
  integers,
  type Precision,
  precisionOf,
  results,
  toChannelsFirst,
  toChannelsLast,
} from './distances.ts';
import { type GoldenCase, need, readGoldenJson, readGoldenTensors } from './golden.ts';

const schema = z.object({ files: z.record(z.string(), z.unknown()) });
const PART = 'unet.';
/** What a float32 U-Net of this size is off by. */
const FLOAT32_ERROR = 1.5e-6;

/**
 * @param directory holds `interchange/`
 * @param modelFolder the base the adapters were made for
 * @throws Error one line: a file or tensor is missing or malformed
 */
export async function* verifyAdapterOutputs(
  directory: string,
  modelFolder: string,
  backend: Backend,
): AsyncGenerator<GoldenCase> {
  const folder = join(directory, 'interchange');
  const { files } = await readGoldenJson(folder, 'interchange.json', schema);
  const expected = await readGoldenTensors(join(folder, 'effective.safetensors'));
  const precision = precisionOf(backend);
  const config = (await readConfigs(modelFolder)).configs.unet;
  const { source } = await openPart(join(modelFolder, 'unet'), 'unet');
  const base: UNet = await load(unetSpec(config), source, { dtype: precision });
  const probe = (name: string) => need(expected, `probe.${name}`);
  const run = (p: UNet) =>
    unet(
      p,
      config,
      toChannelsLast(floats(probe('sample'), precision)),
      integers(probe('timestep')),
      floats(probe('encoder_hidden_states'), precision),
    );
  const check = async (name: string, p: UNet, output: string): Promise<GoldenCase> => {
    const values = await results({ output: toChannelsFirst(run(p)) }, backend);
    // ranks and scales make the adapted outputs larger than the base's, and their rounding with them
    return compared(name, values.output, need(expected, output), {
      precision,
      float32Error: FLOAT32_ERROR * Math.max(1, ...need(expected, output).data.map(Math.abs)),
    });
  };
  yield await check('interchange output without adapter', base, 'probe.base_output');
  for (const name of Object.keys(files)) {
    if (!expected.has(`${name}.unet_output`)) continue;
    const single = join(folder, `${name}.safetensors`);
    const { modules } = await readAdapter(existsSync(single) ? single : join(folder, name));
    yield await check(`interchange output with ${name}`, adapted(base, modules, precision), `${name}.unet_output`);
  }
}

/** Adapters beside their weights where the module is a linear layer, added to the kernel where it is a convolution. */
function adapted(base: UNet, modules: ReadonlyMap<string, AdapterModule>, dtype: Precision): UNet {
  let out = base;
  for (const [path, m] of modules) {
    if (!path.startsWith(PART)) continue;
    out = updateAt(out, path.slice(PART.length), (node) => {
      const linear = node as AdaptedLinear;
      if (m.kernel === undefined) {
        const [A, B] = [tensor([...m.A], [m.dIn, m.rank], dtype), tensor([...m.B], [m.rank, m.dOut], dtype)];
        return { ...linear, adapter: { A, B, scale: m.scale } };
      }
      const [kh, kw] = m.kernel;
      const shape = [m.dOut, m.dIn / (kh * kw), kh, kw];
      const delta = toModelLayout({ data: deltaWeight(m), shape });
      return { ...linear, weight: add(linear.weight, tensor([...delta.data], delta.shape, dtype)) };
    });
  }
  return out;
}
