/**
 * From a model's specification (`unetSpec(config)`, `vaeSpec`, `textEncoderSpec`) everything else derives: the names and
 * shapes a checkpoint must have, the linear layers an adapter can be put on, fresh parameters (`init` in nn), parameters
 * from a checkpoint, and the checkpoint of parameters.
 */
import { entries, read, type Tensor, type Tree, tensor, unflatten } from '../core/index.ts';
import { fileShape, type Param, type Params, toFileLayout, toModelLayout } from '../nn/index.ts';
import type { TensorOut } from './io/safetensors-write.ts';
import { checkWeights, type WeightSource } from './io/weights.ts';

/** Every parameter with its name, in the order of the tree. */
export const specEntries = (spec: Tree<Param>): readonly (readonly [string, Param])[] => entries<Param>(spec);

/** Names and shapes as a checkpoint has them, in the order of the tree. */
export const specShapes = (spec: Tree<Param>): ReadonlyMap<string, readonly number[]> =>
  new Map(entries(spec).map(([path, param]) => [path, param.shape]));

/** Module paths of all linear layers: those an adapter can be put on. */
export const linearPaths = (spec: Tree<Param>): readonly string[] =>
  entries(spec)
    .filter(([path, param]) => param.layer === 'linear' && path.endsWith('.weight'))
    .map(([path]) => path.slice(0, -'.weight'.length));

/** Number of parameters (single values). */
export const parameterCount = (spec: Tree<Param>): number =>
  entries(spec).reduce((total, [, param]) => total + param.shape.reduce((n, side) => n * side, 1), 0);

/**
 * Parameters from a checkpoint, convolution kernels in the model's order of axes, each labelled with its path.
 * f64 is for verification.
 * @throws FileError one line: what is missing, of the wrong shape or too much, before anything is read
 * @example const params = await load(unetSpec(base.configs.unet), base.parts.unet)
 */
export function load<S extends Tree<Param>>(
  spec: S,
  source: WeightSource,
  { dtype = 'f32' }: { dtype?: 'f32' | 'f64' } = {},
): Promise<Params<S>> {
  return readAll(spec, source, dtype).then((values) => unflatten<unknown>(spec, values)) as Promise<Params<S>>;
}
async function readAll(spec: Tree<Param>, source: WeightSource, dtype: 'f32' | 'f64'): Promise<Tensor[]> {
  checkWeights(source, specShapes(spec));
  const values: Tensor[] = [];
  for (const [path, { shape }] of entries<Param>(spec)) {
    const data = await source.get(path).read();
    const placed = toModelLayout({ data: dtype === 'f64' ? Float64Array.from(data) : data, shape });
    values.push(tensor(placed.data, placed.shape, dtype, path));
  }
  return values;
}

/**
 * The checkpoint of a tree of parameters: names, PyTorch's shapes, values read when their turn comes.
 * @example await writeSafetensors(file, toCheckpoint(params, 'F16'))
 */
export const toCheckpoint = (
  params: Tree<Tensor>,
  dtype: 'F16' | 'F32' = 'F32',
): ReadonlyMap<string, TensorOut & { readonly data: () => Promise<Float32Array> }> =>
  new Map(
    entries<Tensor>(params).map(([path, param]) => {
      const data = async (): Promise<Float32Array> => {
        const values = await read(param);
        const floats = values instanceof Float32Array ? values : Float32Array.from(values);
        return toFileLayout({ data: floats, shape: param.shape }).data;
      };
      return [path, { dtype, shape: fileShape(param.shape), data }];
    }),
  );
