/** The weights of Winograd's F(4×4), transformed and in panels: u[position][panel][k][lane] = (G g Gᵀ)[position]. */
import {
  type Assembler,
  call,
  type Expr,
  type Func,
  type FunctionBuilder,
  i32,
  type Local,
  v128,
} from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { min } from '../loops/digits.ts';
import { type Packable, readers } from '../loops/halves.ts';
import { transpose } from '../product/pack.ts';
import { alongWeights, range, type V128 } from './transforms.ts';

type I32 = Local<'i32'>;
/**
 * weights(to, from, lane, lastLane, k, rowStride, columnStride, kStride, laneStride, uPosition, scratch): four lanes of a
 * panel of `width` and k steps, G g Gᵀ. Either lanes or k must be contiguous. Lanes beyond the last are unspecified. May read a
 * panel past the source.
 */
export const weightFunction = (m: Assembler, width: number, type: Packable): Func => {
  const { bytes, four } = readers[type];
  const params = Array.from({ length: 11 }, () => 'i32' as const);
  return m.func('', params, 'void', (f, ...words) => {
    const [to, source, firstLane, lastLane, count] = words as unknown as [I32, I32, I32, I32, I32];
    const [rowStride, columnStride, kStride] = words.slice(5) as unknown as [I32, I32, I32];
    const [laneStride, uPosition, scratch] = words.slice(8) as unknown as [I32, I32, I32];
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const [k, step] = f.locals('i32');
    const taps = range(9).map((tap) =>
      f.let(i32.add(i32.mul(rowStride, Math.floor(tap / 3)), i32.mul(columnStride, tap % 3))),
    );
    /** nine taps of four lanes → 36 positions */
    const transform = (g: readonly V128[]): void => {
      const half = range(3).map((x) => alongWeights([g[x]!, g[3 + x]!, g[6 + x]!], keep).map(keep));
      const at = f.let(to);
      for (const y of range(6))
        for (const value of alongWeights(
          half.map((column) => column[y]!),
          keep,
        )) {
          f.emit(v128.store(at, value));
          f.set(at, i32.add(at, uPosition));
        }
      f.inc(to, width * 4);
    };
    f.if(
      i32.eq(laneStride, bytes),
      () => {
        const from = f.let(i32.add(source, i32.mul(firstLane, bytes)));
        f.for(k, 0, count, 1, () => {
          transform(taps.map((tap) => f.let(four(f, i32.add(from, tap)))));
          f.set(from, i32.add(from, kStride));
        });
      },
      () => {
        const lanes = range(4).map((i) => {
          const lane = f.let(i32.add(firstLane, i));
          return f.let(i32.add(source, i32.mul(min(lane, lastLane), laneStride)));
        });
        f.for(k, 0, count, 4, () => {
          // four steps of k of four lanes at once, turned into scratch[step][tap]
          for (const [i, tap] of taps.entries())
            transpose(
              f,
              lanes.map((lane) => f.let(four(f, i32.add(lane, tap)))),
              scratch,
              i * 16,
              9 * 16,
            );
          const steps = f.let(i32.sub(count, k));
          f.if(i32.gt_u(steps, 4), () => f.set(steps, 4));
          const from = f.let(scratch);
          f.for(step, 0, steps, 1, () => {
            transform(range(9).map((i) => f.let(v128.load(from, i * 16))));
            f.inc(from, 9 * 16);
          });
          for (const lane of lanes) f.inc(lane, 4 * bytes);
        });
      },
    );
  });
};

const weightWords = words(['w rowStride columnStride kStride laneStride lanes k kPerUnit u uPosition']);

/** Calls {@link weightFunction} for each vector of a panel of `width` lanes from `lane` on. */
export const transformPanel = (
  f: FunctionBuilder,
  transform: Func,
  width: number,
  target: Local<'i32'>,
  source: Local<'i32'>,
  lane: Local<'i32'>,
  common: readonly Expr<'i32'>[],
): void => {
  for (let q = 0; q < width; q += 4)
    f.emit(call(transform, [i32.add(target, q * 4), source, i32.add(lane, q), ...common]));
};

/**
 * u[position][panel][k][width]; unit = `kPerUnit` steps of k of all panels, so that what is read of neighbouring panels is
 * still in the first-level cache
 */
export const weightTransform = (width: number, type: Packable) =>
  kernel(`winogradWeights${width} ${type}`, weightWords, ({ f, m, start, end, scratch, locals }) => {
    const transform = weightFunction(m, width, type);
    const w = locals();
    const [unit, panel] = f.locals('i32');
    const lastLane = f.let(i32.sub(w.lanes, 1));
    const panels = f.let(i32.div_u(i32.add(lastLane, width), width));
    f.for(unit, start, end, 1, () =>
      f.for(panel, 0, panels, 1, () => {
        const firstK = f.let(i32.mul(unit, w.kPerUnit));
        const count = f.let(i32.sub(w.k, firstK));
        f.set(count, min(count, w.kPerUnit));
        const target = f.let(i32.add(w.u, i32.mul(i32.add(i32.mul(panel, w.k), firstK), width * 4)));
        const source = f.let(i32.add(w.w, i32.mul(firstK, w.kStride)));
        const lane = f.let(i32.mul(panel, width));
        const strides = [w.rowStride, w.columnStride, w.kStride, w.laneStride] as const;
        const common = [lastLane, count, ...strides, w.uPosition, scratch] as const;
        transformPanel(f, transform, width, target, source, lane, common);
      }),
    );
  });
