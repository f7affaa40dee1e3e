/** Weights of Inception by the reference's formula: they check the graph, not the quality of features. */
import { type DType, type Tensor, tensor, unflatten } from '../../core/index.ts';
import { type Inception, inceptionSpec } from '../../models/inception/index.ts';
import { specEntries } from '../../models/spec.ts';
import { toModelLayout } from '../../nn/index.ts';

const fnv = (text: string): number => {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193) >>> 0;
  return h;
};
/** All elements of a tensor by its name. */
export function weightByFormula(name: string, shape: readonly number[], prefix = 'inception-1/'): Float32Array {
  const h = fnv(prefix + name);
  const n = shape.reduce((a, b) => a * b, 1);
  const wide = shape.length > 1 ? 2.4 / Math.sqrt(n / shape[0]!) : 0;
  const [scale, start] = name.endsWith('running_mean') ? [0.1, 0] : name.endsWith('running_var') ? [0.5, 1] : wide > 0 ? [wide, 0] : name.endsWith('.weight') ? [0.2, 1] : [0.1, 0]; // biome-ignore format: one line
  return Float32Array.from({ length: n }, (_, i) => {
    let x = (h + Math.imul(i, 0x9e3779b9)) >>> 0;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b) >>> 0;
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35) >>> 0;
    x = (x ^ (x >>> 16)) >>> 0;
    return start + scale * (((x + 0.5) / 2 ** 32) * 2 - 1);
  });
}
/** The whole network. */
export function inceptionByFormula(dtype: DType = 'f32', only = (_name: string): boolean => true): Inception<Tensor> {
  const spec = inceptionSpec();
  const values = specEntries(spec).map(([name, { shape }]) => {
    const data = only(name) ? weightByFormula(name, shape) : new Float32Array(shape.reduce((a, b) => a * b, 1));
    const placed = toModelLayout({ data, shape });
    return tensor(placed.data, placed.shape, dtype);
  });
  return unflatten<unknown>(spec as never, values) as Inception<Tensor>;
}
