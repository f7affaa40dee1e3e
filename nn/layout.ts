/**
 * Order of axes on the host. Files hold convolution kernels as [out, in, kh, kw]; models use [kh, kw, in, out], because
 * pictures have their channels last. The change is made once, when weights are loaded or saved.
 */

/** Uint16Array: half-float patterns */
type HostValues = Float32Array | Float64Array | Uint16Array;

/** `data` of `shape` with its axes in another order: result axis i is axis perm[i] of the source. */
export function permuteAxes<A extends HostValues>(data: A, shape: readonly number[], perm: readonly number[]): A {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((n, side) => n * side, 1));
  const to = perm.map((axis) => shape[axis]!);
  const step = perm.map((axis) => strides[axis]!);
  const out = new (data.constructor as { new (n: number): A })(data.length);
  const index = to.map(() => 0);
  let from = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = data[from]!;
    for (let axis = to.length - 1; axis >= 0; axis--) {
      from += step[axis]!;
      if (++index[axis]! < to[axis]!) break;
      from -= step[axis]! * to[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

const TO_MODEL = [2, 3, 1, 0];
const TO_FILE = [3, 2, 0, 1];

type Values<A> = { readonly data: A; readonly shape: readonly number[] };

/** The shape `toModelLayout` gives: [out, in, kh, kw] → [kh, kw, in, out]; other shapes unchanged. */
export const toModelShape = (shape: readonly number[]): readonly number[] =>
  shape.length === 4 ? TO_MODEL.map((i) => shape[i]!) : shape;

/** A parameter from a file's layout to the model's: only convolution kernels (four axes) change. */
export const toModelLayout = <A extends HostValues>({ data, shape }: Values<A>): Values<A> =>
  shape.length === 4 ? { data: permuteAxes(data, shape, TO_MODEL), shape: toModelShape(shape) } : { data, shape };

/** The shape `toFileLayout` gives: [kh, kw, in, out] → [out, in, kh, kw]; other shapes unchanged. */
export const fileShape = (shape: readonly number[]): readonly number[] =>
  shape.length === 4 ? TO_FILE.map((i) => shape[i]!) : shape;

/** The inverse of `toModelLayout`. */
export const toFileLayout = <A extends HostValues>({ data, shape }: Values<A>): Values<A> =>
  shape.length === 4
    ? { data: permuteAxes(data, shape, TO_FILE), shape: TO_FILE.map((i) => shape[i]!) }
    : { data, shape };
