/**
 * Iteration over several axes inside a kernel. A kernel knows how many axes there are; their sizes and strides are
 * argument words, so that a new shape never needs a new kernel.
 */
import { type Expr, type FunctionBuilder, i32, type KernelParams, type Local } from '../assembler/assemble.ts';

type I32 = Local<'i32'>;

/** one axis: how often, and how far each pointer moves, in bytes */
export interface WalkAxis {
  readonly size: number;
  readonly strides: Readonly<Record<string, number>>;
}
/** what walks need of the code of a kernel: its words by name */
interface Words {
  readonly f: FunctionBuilder;
  read(word: string): Expr<'i32'>;
}
/** words in locals of their own; a walk may move those that are addresses */
export const readAll = <P extends string>({ f, read }: Words, names: readonly P[]): Readonly<Record<P, I32>> =>
  Object.fromEntries(names.map((p) => [p, f.let(read(p))])) as Record<P, I32>;

/** names of the words of a walk over `rank` axes that moves `pointers` */
export const walkNames = (prefix: string, rank: number, pointers: readonly string[]): string[] =>
  Array.from({ length: rank }, (_, k) => [
    `${prefix}${k}.size`,
    ...pointers.flatMap((p) => [`${prefix}${k}.stride.${p}`, `${prefix}${k}.step.${p}`]),
  ]).flat();
/** their values */
export const walkWords = (
  prefix: string,
  axes: readonly WalkAxis[],
  pointers: readonly string[],
): Record<string, number> => {
  const values: Record<string, number> = {};
  for (const [k, { size, strides }] of axes.entries()) {
    values[`${prefix}${k}.size`] = size;
    for (const p of pointers) {
      values[`${prefix}${k}.stride.${p}`] = strides[p] ?? 0;
      // when this axis moves on, all later ones go back to 0
      const back = axes.slice(k + 1).reduce((sum, a) => sum + (a.size - 1) * (a.strides[p] ?? 0), 0);
      values[`${prefix}${k}.step.${p}`] = (strides[p] ?? 0) - back;
    }
  }
  return values;
};

/**
 * Visits `count` items from item `first` on, the last axis running fastest; `pointers` (at the first item of all when the
 * walk starts) move along. `body` gets the coordinates; it must not change them or the pointers.
 */
export const walk = (
  { f, read }: Words,
  prefix: string,
  rank: number,
  pointers: Readonly<Record<string, I32>>,
  first: Expr<'i32'>,
  count: Expr<'i32'>,
  body: (coordinates: readonly I32[]) => void,
): void => {
  const coordinates = Array.from({ length: rank }, () => f.local('i32'));
  const left = f.let(count);
  f.if(left, () => {
    const rest = f.let(first);
    for (let k = rank - 1; k >= 0; k--) {
      const at = coordinates[k]!;
      if (k === 0) f.set(at, rest);
      else {
        f.set(at, i32.rem_u(rest, read(`${prefix}${k}.size`)));
        f.set(rest, i32.div_u(rest, read(`${prefix}${k}.size`)));
      }
      for (const [p, pointer] of Object.entries(pointers))
        f.inc(pointer, i32.mul(at, read(`${prefix}${k}.stride.${p}`)));
    }
    const advance = (k: number): void => {
      f.inc(coordinates[k]!, 1);
      const move = (): void => {
        for (const [p, pointer] of Object.entries(pointers)) f.inc(pointer, read(`${prefix}${k}.step.${p}`));
      };
      if (k === 0) move();
      else
        f.if(i32.lt_u(coordinates[k]!, read(`${prefix}${k}.size`)), move, () => {
          f.set(coordinates[k]!, 0);
          advance(k - 1);
        });
    };
    f.while(left, () => {
      body(coordinates);
      f.inc(left, -1);
      if (rank > 0) f.if(left, () => advance(rank - 1));
    });
  });
};

/** Walks the items of the units start ≤ u < end, where a unit is `unit.items` items of `items`. */
export const walkUnits = (
  code: Words & KernelParams,
  prefix: string,
  rank: number,
  pointers: Readonly<Record<string, I32>>,
  body: (coordinates: readonly I32[]) => void,
): void => {
  const { f, read } = code;
  const first = f.let(i32.mul(code.start, read('unit')));
  const last = f.let(i32.mul(code.end, read('unit')));
  f.if(i32.gt_u(last, read('items')), () => f.set(last, read('items')));
  walk(code, prefix, rank, pointers, first, i32.sub(last, first), body);
};
/** words {@link walkUnits} reads */
export const unitNames = ['unit', 'items'] as const;

/** some 5 µs of work */
const UNIT_COST = 16384;
/** less than this many units are not worth waking another thread */
const LEAST_UNITS = 4;
/** Cuts `items` of `cost` simple instructions each into units worth handing to another thread. */
export const cutUnits = (items: number, cost: number): { unit: number; items: number; grid: number } => {
  const fit = Math.floor(UNIT_COST / Math.max(1, cost));
  const unit = items * cost < LEAST_UNITS * UNIT_COST ? items : Math.max(1, Math.min(items, fit));
  return { unit, items, grid: Math.ceil(items / unit) };
};
