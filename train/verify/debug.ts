/**
 * Finds the first place where a U-Net differs: the outputs of its submodules against a golden directory's
 * `debug.safetensors` (first sample of one case, unet.b in the first set), in the order in which they are computed.
 */
import { join } from 'node:path';
import { type Backend, slice, type Tensor } from '../../core/index.ts';
import { readConfigs } from '../../models/io/base.ts';
import { openPart } from '../../models/io/part.ts';
import { load } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import {
  compared,
  distance,
  floats,
  integers,
  largest,
  precisionOf,
  results,
  toChannelsFirst,
  toChannelsLast,
} from './distances.ts';
import { type GoldenCase, need, readGoldenTensors } from './golden.ts';

export const DEBUG_FILES = ['debug.safetensors'] as const;

/** What the float32 run of a U-Net is off by at least, relative to its largest value; no more can be asked of a part. */
const FLOAT32_ERROR = 1e-6;

/** Cases come in the order of computation: the first that fails is where to look. @throws Error one line */
export async function* verifyDebug(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const expected = await readGoldenTensors(join(directory, 'debug.safetensors'));
  const inputs = await readGoldenTensors(join(directory, 'models.safetensors'));
  const name = /^unet\.[^.]+/.exec([...expected.keys()][0] ?? '')?.[0];
  if (name === undefined) throw new Error('debug.safetensors: expected tensors named unet.<case>.<submodule>');
  const folder = join(directory, 'tiny-sd');
  const config = (await readConfigs(folder)).configs.unet;
  const { source } = await openPart(join(folder, 'unet'), 'unet');
  const precision = precisionOf(backend);
  const params = await load(unetSpec(config), source, { dtype: precision });
  const first = (x: Tensor) => slice(x, { axis: 0, stop: 1 });
  const input = (what: string) => need(inputs, `${name}.${what}`);

  const seen: Record<string, Tensor> = {};
  const tap = (path: string, value: Tensor): void => {
    const stored = `${name}.${path}`;
    if (expected.has(stored)) seen[stored] = value.shape.length === 4 ? toChannelsFirst(value) : value;
  };
  unet(
    params,
    config,
    first(toChannelsLast(floats(input('sample'), precision))),
    first(integers(input('timestep'))),
    first(floats(input('encoder_hidden_states'), precision)),
    { tap },
  );
  const [output, output32] = [inputs.get(`${name}.output`), inputs.get(`${name}.output_f32`)];
  const whole = output && output32 ? distance(output32.data, output.data) / (largest(output.data) || 1) : 0;
  // an angle t·f is rounded to t·2⁻²⁴: of that, a tenth counts here, as ten times the error is allowed
  const angle = (0.2 * input('timestep').data[0]!) / 2 ** 24;
  for (const [stored, value] of Object.entries(await results(seen, backend))) {
    const wanted = need(expected, stored);
    const error = Math.max(FLOAT32_ERROR, whole, /\.time_(proj|embedding)$/.test(stored) ? angle : 0);
    yield compared(`debug ${stored}`, value, wanted, { precision, float32Error: error * largest(wanted.data) });
  }
  // last: what is known has been compared
  const stray = [...expected.keys()].filter((stored) => !seen[stored]);
  if (stray.length > 0) throw new Error(`debug.safetensors: no submodule ${stray.slice(0, 3).join(', ')}`);
}
