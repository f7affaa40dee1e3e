/**
 * Finds the first place where a U-Net differs: the outputs of its submodules against a golden directory's
 * `debug.safetensors` (case unet.b, first sample), in the order in which they are computed.
 */
import { join } from 'node:path';
import { type Backend, slice, type Tensor } from '../../core/index.ts';
import { openBase } from '../../models/io/base.ts';
import { load } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import {
  compared,
  floats,
  integers,
  largest,
  precisionOf,
  results,
  toChannelsFirst,
  toChannelsLast,
} from './compare.ts';
import { type GoldenCase, need, readGoldenTensors } from './golden.ts';

export const DEBUG_FILES = ['debug.safetensors'] as const;

const CASE = 'unet.b';
/** What the whole U-Net's float32 run is off by, relative to its largest value; no more can be asked of a part. */
const FLOAT32_ERROR = 1e-6;

/** Cases come in the order of computation: the first that fails is where to look. @throws Error one line */
export async function* verifyDebug(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const expected = await readGoldenTensors(join(directory, 'debug.safetensors'));
  const inputs = await readGoldenTensors(join(directory, 'models.safetensors'));
  const base = await openBase(join(directory, 'tiny-sd'));
  const config = base.configs.unet;
  const precision = precisionOf(backend);
  const params = await load(unetSpec(config), base.parts.unet, { dtype: precision });
  const first = (x: Tensor) => slice(x, { axis: 0, stop: 1 });
  const input = (name: string) => need(inputs, `${CASE}.${name}`);

  const seen: Record<string, Tensor> = {};
  const tap = (path: string, value: Tensor): void => {
    const name = `${CASE}.${path}`;
    if (expected.has(name)) seen[name] = value.shape.length === 4 ? toChannelsFirst(value) : value;
  };
  unet(
    params,
    config,
    first(toChannelsLast(floats(input('sample'), precision))),
    first(integers(input('timestep'))),
    first(floats(input('encoder_hidden_states'), precision)),
    { tap },
  );
  for (const name of expected.keys()) if (!seen[name]) throw new Error(`debug.safetensors: no submodule ${name}`);
  for (const [name, value] of Object.entries(await results(seen, backend))) {
    const wanted = need(expected, name);
    yield compared(`debug ${name}`, value, wanted, { precision, float32Error: FLOAT32_ERROR * largest(wanted.data) });
  }
}
