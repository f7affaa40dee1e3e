/** Strided windows on a buffer: what the layout primitives do, without moving a byte. */
export interface View {
  readonly shape: readonly number[];
  /** elements between neighbours along each axis; 0 repeats, negative runs backwards */
  readonly strides: readonly number[];
  readonly offset: number;
}

export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}
/** equal numbers in equal places */
export function same(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The coordinates of a row-major number: `coordinatesOf(5, [2, 3])` → [1, 2]. */
export function coordinatesOf(at: number, shape: readonly number[]): number[] {
  let rest = at;
  const backwards = shape.toReversed().map((n) => {
    const i = rest % n;
    rest = Math.floor(rest / n);
    return i;
  });
  return backwards.toReversed();
}

export function rowMajor(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

export const contiguousView = (shape: readonly number[]): View => ({ shape, strides: rowMajor(shape), offset: 0 });

/** True when the view reads its elements in row-major order without gaps (the offset may be anything). */
export function isContiguous(v: View): boolean {
  let step = 1;
  for (let i = v.shape.length - 1; i >= 0; i--) {
    if (v.shape[i] !== 1 && v.strides[i] !== step) return false;
    step *= v.shape[i]!;
  }
  return true;
}

/** True when the view is its buffer from the first element on, in row-major order. */
export const isWhole = (v: View): boolean => v.offset === 0 && isContiguous(v);

export const permuteView = (v: View, perm: readonly number[]): View => ({
  shape: perm.map((p) => v.shape[p]!),
  strides: perm.map((p) => v.strides[p]!),
  offset: v.offset,
});

export const expandView = (v: View, shape: readonly number[]): View => ({
  shape,
  strides: v.strides.map((s, i) => (v.shape[i] === shape[i] ? s : 0)),
  offset: v.offset,
});

export const sliceView = (
  v: View,
  start: readonly number[],
  shape: readonly number[],
  step: readonly number[],
): View => ({
  shape,
  strides: v.strides.map((s, i) => s * step[i]!),
  offset: v.offset + start.reduce((o, s, i) => o + s * v.strides[i]!, 0),
});

export const flipView = (v: View, axes: readonly number[]): View => ({
  shape: v.shape,
  strides: v.strides.map((s, i) => (axes.includes(i) ? -s : s)),
  offset: v.offset + axes.reduce((o, a) => o + (v.shape[a]! - 1) * v.strides[a]!, 0),
});

/** The same elements under another shape, or undefined when no set of strides can say it (a copy is needed). */
export function reshapeView(v: View, shape: readonly number[]): View | undefined {
  if (sizeOf(shape) === 0) return contiguousView(shape);
  // drop axes of size 1, merge neighbours that run on without a jump
  const dims: { size: number; stride: number }[] = [];
  for (let i = 0; i < v.shape.length; i++) {
    const size = v.shape[i]!;
    const stride = v.strides[i]!;
    if (size === 1) continue;
    const last = dims[dims.length - 1];
    if (last && last.stride === stride * size) {
      last.size *= size;
      last.stride = stride;
    } else dims.push({ size, stride });
  }
  // split the merged axes into the new shape, innermost first
  const strides = new Array<number>(shape.length).fill(0);
  let d = dims.length - 1;
  let left = d >= 0 ? dims[d]!.size : 1;
  let stride = d >= 0 ? dims[d]!.stride : 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    const n = shape[i]!;
    if (n === 1) continue;
    if (left === 1) {
      d--;
      if (d < 0) return undefined;
      left = dims[d]!.size;
      stride = dims[d]!.stride;
    }
    if (left % n !== 0) return undefined;
    strides[i] = stride;
    stride *= n;
    left /= n;
  }
  return { shape, strides, offset: v.offset };
}

/** greatest common divisor */
export const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
