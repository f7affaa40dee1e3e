/** Tensors that hold values: where their bytes live, how they get to a backend and back. No user-visible disposal. */

import { type DType, dtypes, entriesOf, type HostArray, isPacked, isStored } from '../ir/dtype.ts';
import { CoreError, DonatedError } from '../ir/errors.ts';
import { dataOp, type LeafAttrs, leaf, type Shape, type Tensor } from '../ir/tensor.ts';
import { mapTree } from '../ir/tree.ts';
import { sizeOf } from '../ir/view.ts';
import type { Backend } from './backend.ts';

/** The bytes of one data tensor: on the host, on backends, or gone (donated). */
class Cell {
  host: HostArray | undefined;
  readonly placed = new Map<Backend, unknown>();
  donatedTo: string | undefined;
  constructor(host?: HostArray) {
    this.host = host;
  }
}

const released = new FinalizationRegistry<{ backend: Backend; storage: unknown }>(({ backend, storage }) =>
  backend.free(storage),
);
/** one registration per (cell, backend), so that a donated storage can be taken out again */
const tokens = new WeakMap<Cell, Map<Backend, object>>();

function adopt(cell: Cell, backend: Backend, storage: unknown): void {
  cell.placed.set(backend, storage);
  const token = {};
  if (!tokens.has(cell)) tokens.set(cell, new Map());
  tokens.get(cell)!.set(backend, token);
  released.register(cell, { backend, storage }, token);
}

const cellOf = (t: Tensor): Cell => {
  const cell = (t.attrs as LeafAttrs).storage;
  if (!(cell instanceof Cell))
    throw new CoreError(
      `${t.label ?? 'this tensor'} is a recipe, not a value: evaluate it first (or read it inside compile)`,
    );
  return cell;
};
export const isData = (t: Tensor): boolean => (t.attrs as LeafAttrs).storage instanceof Cell;

const holds = (type: DType, values: unknown): values is HostArray => values instanceof dtypes[type].array;
/** of the dtypes with this host array the first: u32 before bool */
const inferred = (values: ArrayBufferView): DType =>
  (Object.keys(dtypes) as DType[]).find((d) => holds(d, values)) ?? 'u32';

/** numbers in arrays of arrays, all of one depth and length */
export type Nested = readonly (number | Nested | HostArray)[];
const isList = (x: unknown): x is readonly unknown[] => Array.isArray(x) || ArrayBuffer.isView(x);
/** `[[1, 2], [3, 4]]` → [2, 2]. @throws CoreError when rows differ */
function nestedShape(values: readonly unknown[]): number[] {
  const shapes = Array.from(values, (x) => (isList(x) ? nestedShape(x) : undefined));
  const [first] = shapes;
  if (shapes.some((s) => s?.join() !== first?.join()))
    throw new CoreError('tensor: nested arrays must be rows of equal length and depth');
  return [values.length, ...(first ?? [])];
}
const flat = (values: readonly unknown[]): number[] =>
  Array.from(values as ArrayLike<unknown>).flatMap((x) => (isList(x) ? flat(x) : [x as number]));

/**
 * A tensor from values: `tensor([1, 2, 3])`, `tensor([[1, 2], [3, 4]])`, `tensor(new Float32Array(6), [2, 3])`. Typed arrays are taken over, not
 * copied: do not write to them afterwards.
 * @throws CoreError when the number of values does not fit the shape, rows differ in length, or a value is no number the
 * dtype holds (fractions and NaN beside integers).
 */
export function tensor(values: HostArray | Nested | number, shape?: Shape, dtype?: DType, label?: string): Tensor {
  const nested = Array.isArray(values) && values.some((x) => Array.isArray(x) || ArrayBuffer.isView(x));
  const inner = nested ? nestedShape(values as Nested) : undefined;
  const list = (typeof values === 'number' ? [values] : nested ? flat(values as Nested) : values) as
    | HostArray
    | readonly number[];
  const type = dtype ?? (ArrayBuffer.isView(list) ? inferred(list) : 'f32');
  const array = holds(type, list) ? list : fill(type, list as ArrayLike<number>);
  const dims = shape ?? inner ?? (typeof values === 'number' ? [] : [array.length]);
  if (dims.some((n) => !Number.isInteger(n) || n < 0))
    throw new CoreError(`tensor: sizes must be whole numbers of at least 0, not [${dims.join(', ')}]`);
  if (shape === undefined && isPacked(type)) throw new CoreError(`tensor: ${type} values need a shape`);
  if (entriesOf(type, sizeOf(dims)) !== array.length)
    throw new CoreError(`tensor: ${array.length} values do not fill [${dims.join(', ')}]`);
  return leaf(dataOp, { shape: dims, dtype: type, storage: new Cell(array) }, label);
}
function fill(type: DType, values: ArrayLike<number>): HostArray {
  // a bit pattern is a whole number; anything else was meant as a value, which only f32 can hold here
  if (isStored(type) && Array.prototype.some.call(values, (x: number) => !Number.isInteger(x)))
    throw new CoreError(`tensor: ${type} values are given as bit patterns, best in a ${dtypes[type].array.name}`);
  const out: HostArray = new dtypes[type].array(values.length);
  const integer = type === 'i32' || type === 'u32';
  for (let i = 0; i < values.length; i++) {
    const x = Number(values[i]);
    if (typeof values[i] !== 'number' && typeof values[i] !== 'boolean')
      throw new CoreError(`tensor: value ${i} is ${typeof values[i]}, not a number`);
    if (integer && !Number.isInteger(x))
      throw new CoreError(`tensor: value ${i} is ${x}, which ${type} cannot hold: values must be whole`);
    out[i] = x;
  }
  return out;
}

/** A data tensor around a storage a backend has made. */
export function placedTensor(backend: Backend, storage: unknown, shape: Shape, dtype: DType): Tensor {
  const cell = new Cell();
  adopt(cell, backend, storage);
  return leaf(dataOp, { shape, dtype, storage: cell });
}

/** The storage of a data tensor on a backend; uploads it once when it is not there yet. */
export function storageOn(t: Tensor, backend: Backend): unknown {
  const cell = cellOf(t);
  if (cell.donatedTo)
    throw new DonatedError(
      `${t.label ?? `${t.dtype}[${t.shape.join(', ')}]`} was given to ${cell.donatedTo}; use that call's result instead`,
    );
  const there = cell.placed.get(backend);
  if (there !== undefined) return there;
  if (!cell.host)
    throw new CoreError('this tensor lives on another backend: read it and make a new one, or call place');
  const storage = backend.store(cell.host, t.dtype);
  adopt(cell, backend, storage);
  return storage;
}

/** Takes the storage out of the tensor: afterwards the program owns it. */
export function donate(t: Tensor, backend: Backend, to: string): void {
  const cell = cellOf(t);
  const token = tokens.get(cell)?.get(backend);
  if (token) released.unregister(token);
  cell.placed.delete(backend);
  cell.host = undefined;
  cell.donatedTo = to;
}

/** what checked programs still have to say of their last runs */
let unread: (() => Promise<void>)[] = [];
/** `check` is awaited, and may throw, before the next value is read. */
export const beforeNextRead = (check: () => Promise<void>): void => void unread.push(check);

/**
 * The values of a data tensor, on the host. The returned array must not be written to.
 * @throws NonFiniteError when a program that checks its values made one that is not finite since the last read
 */
export async function read(t: Tensor): Promise<HostArray> {
  while (unread.length > 0) {
    const checks = unread;
    unread = [];
    for (const check of checks) await check();
  }
  const cell = cellOf(t);
  if (cell.donatedTo)
    throw new DonatedError(
      `${t.label ?? 'this tensor'} was given to ${cell.donatedTo}; use that call's result instead`,
    );
  if (cell.host) return cell.host;
  const [backend, storage] = [...cell.placed][0]!;
  return backend.load(storage);
}
/** The value of a scalar tensor. */
export const readScalar = async (t: Tensor): Promise<number> => (await read(t))[0]!;

/** Moves a tree of data tensors to a backend and drops the host copies: for big frozen weights. */
export function place<P>(tree: P, backend: Backend): P {
  return mapTree((t: Tensor) => {
    const cell = cellOf(t);
    storageOn(t, backend);
    cell.host = undefined;
    return t;
  }, tree);
}
