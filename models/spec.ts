/**
 * From a model's specification (`unetSpec(config)`, `vaeSpec`, `textEncoderSpec`) everything else derives: the names and
 * shapes a checkpoint must have, the linear layers an adapter can be put on, fresh parameters (`init` in nn), parameters
 * from a checkpoint, and the checkpoint of parameters.
 */
import {
  type Backend,
  entries,
  nf4Words,
  packNf4,
  place,
  read,
  type Tensor,
  type Tree,
  tensor,
  unflatten,
} from '../core/index.ts';
import { fileShape, type LayerKind, type Param, type Params, toFileLayout, toModelLayout } from '../nn/index.ts';
import { halfToFloat } from './io/dtypes.ts';
import type { TensorOut } from './io/safetensors-write.ts';
import { checkWeights, type WeightSource } from './io/weights.ts';

/** Every parameter with its name, in the order of the tree. */
export const specEntries = (spec: Tree<Param>): readonly (readonly [string, Param])[] => entries<Param>(spec);

/** Names and shapes as a checkpoint has them, in the order of the tree. */
export const specShapes = (spec: Tree<Param>): ReadonlyMap<string, readonly number[]> =>
  new Map(entries(spec).map(([path, param]) => [path, param.shape]));

const pathsOf = (spec: Tree<Param>, layers: readonly LayerKind[]): readonly string[] =>
  entries(spec)
    .filter(([path, param]) => layers.includes(param.layer) && path.endsWith('.weight'))
    .map(([path]) => path.slice(0, -'.weight'.length));

/** Module paths of all linear layers, in the order of the tree. */
export const linearPaths = (spec: Tree<Param>): readonly string[] => pathsOf(spec, ['linear']);

/** Module paths of all layers an adapter can be put on, linear ones and convolutions, in the order of the tree. */
export const adaptablePaths = (spec: Tree<Param>): readonly string[] => pathsOf(spec, ['linear', 'conv']);

/** Number of parameters (single values). */
export const parameterCount = (spec: Tree<Param>): number =>
  entries(spec).reduce((total, [, param]) => total + param.shape.reduce((n, side) => n * side, 1), 0);

/** Types that frozen weights are stored as: f32, half floats, or 4 bits with doubly quantised scales. */
export type WeightType = 'f32' | 'f16' | 'nf4';

/**
 * What a parameter is stored as where weights are: vectors f32; half floats where matrices and kernels have 4 bits, but
 * these would not be smaller (below 177 numbers) or rows are read one by one (tables of embeddings).
 */
export function storedAs({ shape, layer }: Param, weights: WeightType): WeightType {
  if (shape.length <= 1) return 'f32';
  const n = shape.reduce((product, side) => product * side, 1);
  return weights === 'nf4' && (layer === 'embedding' || 4 * nf4Words(n) >= 2 * n) ? 'f16' : weights;
}

/** How `load` reads a checkpoint. */
export type LoadOptions = {
  /** f64 is for verification. */
  readonly dtype?: 'f32' | 'f64';
  /** How matrices, kernels and tables stay in memory (`storedAs`); biases and norms, which are small, are f32 anyway. */
  readonly weights?: WeightType;
  /** Where each tensor goes as soon as it is read; default: all stay on the host. */
  readonly backend?: Backend;
};

/**
 * Parameters from a checkpoint, convolution kernels in the model's order of axes, each labelled with its path.
 * Beside the result, memory holds one tensor at a time (twice while its axes are put in order).
 * @throws FileError one line: what is missing, of the wrong shape or too much, before anything is read
 * @example const params = await load(unetSpec(base.configs.unet), base.parts.unet)
 */
export function load<S extends Tree<Param>>(
  spec: S,
  source: WeightSource,
  options: LoadOptions = {},
): Promise<Params<S>> {
  return readAll(spec, source, options).then((values) => unflatten<unknown>(spec, values)) as Promise<Params<S>>;
}
async function readAll(
  spec: Tree<Param>,
  source: WeightSource,
  { dtype = 'f32', weights = 'f32', backend }: LoadOptions,
): Promise<Tensor[]> {
  checkWeights(source, specShapes(spec));
  const values: Tensor[] = [];
  for (const [path, param] of entries<Param>(spec)) {
    const weight = source.get(path);
    const { shape } = param;
    const type = dtype === 'f64' ? 'f64' : storedAs(param, weights);
    const data = type === 'f16' ? await weight.readHalf() : await weight.read();
    const placed = toModelLayout<Float32Array | Float64Array | Uint16Array>({
      data: type === 'f64' ? Float64Array.from(data) : data,
      shape,
    });
    const value = tensor(type === 'nf4' ? packNf4(placed.data) : placed.data, placed.shape, type, path);
    values.push(backend ? place(value, backend) : value);
  }
  return values;
}

type Lazy = {
  /** The values in PyTorch's order of axes. */
  readonly data: () => Promise<Float32Array>;
};

/**
 * The checkpoint of a tree of parameters: names, PyTorch's shapes, values read when their turn comes.
 * @example await writeSafetensors(file, toCheckpoint(params, 'F16'))
 */
export const toCheckpoint = (
  params: Tree<Tensor>,
  dtype: 'F16' | 'F32' = 'F32',
): ReadonlyMap<string, TensorOut & Lazy> =>
  new Map(
    entries<Tensor>(params).map(([path, param]) => {
      const data = async (): Promise<Float32Array> => {
        const values = await read(param);
        if (param.dtype === 'nf4')
          throw new RangeError(`${path}: weights of 4 bits are not written: they were rounded`);
        const floats =
          values instanceof Float32Array
            ? values
            : values instanceof Uint16Array
              ? halfToFloat(values)
              : Float32Array.from(values);
        return toFileLayout({ data: floats, shape: param.shape }).data;
      };
      return [path, { dtype, shape: fileShape(param.shape), data }];
    }),
  );
