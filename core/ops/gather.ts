/** Indexing along the first axis: gather reads rows, scatterAdd adds them up; each is the other's derivative. */
import { isPacked } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { axisOf, checkDtypes, checkIds, checkWhole } from '../ir/rules.ts';
import { type Attrs, bind, type Primitive, type Tensor } from '../ir/tensor.ts';
import { mapAll } from './batching.ts';
import { cast } from './cast.ts';
import { full, iota } from './fill.ts';
import { broadcastTo, permute, reshape } from './layout.ts';
import { add, less, mul, select } from './math.ts';

const tail = (t: Tensor, from: number): number[] => t.shape.slice(from) as number[];
/** ids where they lie in [0, rows); an id that no table has where they do not */
const inside = (ids: Tensor, rows: number, then: Tensor): Tensor =>
  // as unsigned numbers negative ones are too large, so that one comparison is enough
  select(less(cast(ids, 'u32'), rows), then, full(ids.shape, ids.dtype === 'i32' ? -1 : 2 ** 32 - 1, ids.dtype));
/** ids of sample b point into block b of a table whose rows are all samples' rows; outside their own block they point nowhere */
function offsetIds(ids: Tensor, rows: number): Tensor {
  return inside(ids, rows, add(ids, mul(iota(ids.shape, 0, ids.dtype), rows)));
}

/**
 * gather: rows of a table     x[v, …d], ids[…i] → y[…i, …d]
 * Ids outside [0, v) read zeros. @throws ShapeError when ids are not integers.
 */
export const gatherOp: Primitive<Attrs> = {
  kind: 'primitive',
  name: 'gather',
  doc: 'rows of a table by number; numbers the table does not have read zeros',
  formula: 'y[i, …] = x[ids[i], …]',
  form: { kind: 'kernel' },
  whenEmpty: () => 0,
  takesStored: true,
  shape(inputs) {
    const [x, ids] = inputs;
    if (x!.shape.length < 1) throw shapeError('gather', inputs, 'operands must be x[v, …] and integer ids');
    checkIds('gather', inputs, ids!);
    if (isPacked(x!.dtype))
      throw shapeError('gather', inputs, `rows of ${x!.dtype} cannot be read by themselves: use cast(x, 'f32')`);
    return { shape: [...ids!.shape, ...tail(x!, 1)], dtype: x!.dtype };
  },
  vjp: ([g], [x, ids]) => [scatterAdd(g!, ids!, x!.shape[0]!), undefined],
  batch(size, [x, ids], [xMapped, idsMapped]) {
    if (!xMapped) return [gather(x!, ids!)];
    if (!idsMapped) {
      // one set of ids for all tables: the batch rides along as a column axis
      const y = gather(permute(x!, [1, 0, ...tail(x!, 2).map((_, i) => i + 2)]), ids!);
      const n = ids!.shape.length;
      return [permute(y, [n, ...ids!.shape.map((_, i) => i), ...tail(x!, 2).map((_, i) => n + 1 + i)])];
    }
    const v = x!.shape[1]!;
    return [gather(reshape(x!, [size * v, ...tail(x!, 2)]), offsetIds(ids!, v))];
  },
  cpu([x, ids], _attrs, [y]) {
    const flatX = flatten(x!);
    const flatIds = flatten(ids!);
    const v = x!.shape[0]!;
    const d = v === 0 ? 0 : flatX.length / v;
    for (let i = 0; i < flatIds.length; i++) {
      const row = flatIds[i]!;
      if (row >= 0 && row < v) for (let j = 0; j < d; j++) y!.data[i * d + j] = flatX[row * d + j]!;
    }
  },
  sample(pick) {
    const v = pick(2, 5);
    return {
      operands: [{ shape: [v, pick(1, 3)] }, { shape: [pick(1, 3), pick(1, 4)], dtype: 'i32', range: [-1, v + 1] }],
      attrs: {},
    };
  },
};

export interface ScatterAttrs {
  /** number of rows of the result */
  readonly rows: number;
}
/** scatterAdd: rows added up by number     g[…i, …d], ids[…i] → y[v, …d]. Added in order of i: same bits every time. */
export const scatterAddOp: Primitive<ScatterAttrs> = {
  kind: 'primitive',
  name: 'scatterAdd',
  doc: 'rows added into a table by number; those with numbers it does not have are left out; integers modulo 2³²',
  formula: 'y[v, …] = Σ_{i: ids[i]=v} g[i, …]',
  form: { kind: 'kernel' },
  whenEmpty: () => 0,
  shape(inputs, a) {
    const [g, ids] = inputs;
    if (ids!.shape.some((n, i) => g!.shape[i] !== n))
      throw shapeError('scatterAdd', inputs, 'operands must be g[…ids.shape, …d] and integer ids');
    checkIds('scatterAdd', inputs, ids!);
    checkDtypes('scatterAdd', inputs, 'number', [g!]);
    checkWhole('scatterAdd', inputs, 'rows', [a.rows]);
    return { shape: [a.rows, ...tail(g!, ids!.shape.length)], dtype: g!.dtype };
  },
  vjp: ([t], [, ids]) => [gather(t!, ids!), undefined],
  batch(size, [g, ids], [gMapped, idsMapped], a) {
    if (!idsMapped && gMapped) {
      const n = ids!.shape.length;
      const rest = tail(g!, n + 1);
      const columns = permute(g!, [...ids!.shape.map((_, i) => i + 1), 0, ...rest.map((_, i) => n + 1 + i)]);
      const y = scatterAdd(columns, ids!, a.rows);
      return [permute(y, [1, 0, ...rest.map((_, i) => i + 2)])];
    }
    const [all, allIds] = mapAll(size, [g!, ids!], [gMapped!, idsMapped!]);
    const y = scatterAdd(all!, offsetIds(allIds!, a.rows), size * a.rows);
    return [reshape(y, [size, a.rows, ...tail(y, 1)])];
  },
  cpu([g, ids], a, [y]) {
    const flatG = flatten(g!);
    const flatIds = flatten(ids!);
    const d = flatIds.length === 0 ? 0 : flatG.length / flatIds.length;
    for (let i = 0; i < flatIds.length; i++) {
      const row = flatIds[i]!;
      if (row >= 0 && row < a.rows) for (let j = 0; j < d; j++) y!.data[row * d + j]! += flatG[i * d + j]!;
    }
  },
  sample(pick) {
    const [v, n] = [pick(2, 5), pick(1, 5)];
    return {
      operands: [{ shape: [n, pick(1, 3)] }, { shape: [n], dtype: 'i32', range: [-1, v + 1] }],
      attrs: { rows: v },
    };
  },
};

/**
 * `gather(table[v,d], ids[b,t])` → [b,t,d]: y[i] = table[ids[i]], an embedding look-up; ids outside [0, v) read zeros.
 * @throws ShapeError when ids are not integers. Cost: one read and one write of y.
 */
export const gather = (x: Tensor, ids: Tensor): Tensor => bind(gatherOp, [x, ids], {});
/**
 * `scatterAdd(g[b,t,d], ids[b,t], v)` → [v,d]: y[v] = Σ g[i] over the i with ids[i] = v; the derivative of `gather`.
 * @throws ShapeError when g does not begin with the axes of ids. Cost: one read of g, one write of y.
 */
export const scatterAdd = (g: Tensor, ids: Tensor, rows: number): Tensor => bind(scatterAddOp, [g, ids], { rows });

/**
 * `take(x[2,3,4], ids[5], 1)` → [2,5,4]: y[…, i, …] = x[…, ids[i], …] with ids 1-D (numpy.take); a negative axis counts from the end.
 * @throws ShapeError when ids are not integers or x has no such axis. Cost: as `gather`.
 */
export function take(x: Tensor, ids: Tensor, axis: number): Tensor {
  const at = axisOf('take', [x, ids], axis);
  const front = [at, ...x.shape.map((_, i) => i).filter((i) => i !== at)];
  const y = gather(permute(x, front), ids);
  return permute(
    y,
    front.map((_, i) => front.indexOf(i)),
  );
}
/**
 * `takeAlong(x[2,3], ids[2,1], 1)` → [2,1]: y[…, i, …] = x[…, ids[…, i, …], …] with ids of x's rank (torch.gather);
 * a negative axis counts from the end; ids outside [0, n) read zeros.
 * @throws ShapeError when ids are not integers, not of x's rank, larger than x on another axis, or x has no such axis. Cost: as `gather`.
 */
export function takeAlong(x: Tensor, ids: Tensor, axis: number): Tensor {
  const at = axisOf('takeAlong', [x, ids], axis);
  if (ids.shape.length !== x.shape.length)
    throw shapeError('takeAlong', [x, ids], 'ids must have as many axes as the first operand');
  checkIds('takeAlong', [x, ids], ids);
  if (ids.shape.some((n, i) => i !== at && n > x.shape[i]!))
    throw shapeError('takeAlong', [x, ids], `ids must not be larger than the first operand on any axis but ${at}`);
  let flat: Tensor = full(ids.shape, 0, ids.dtype);
  let step = 1;
  for (let i = x.shape.length - 1; i >= 0; i--) {
    const index = i === at ? ids : iota(ids.shape, i, ids.dtype);
    flat = add(flat, mul(index, step));
    step *= x.shape[i]!;
  }
  return gather(reshape(x, [step]), inside(ids, x.shape[at]!, broadcastTo(flat, ids.shape)));
}
