/** The weights of Winograd's F(4×4), transformed and in panels: u[position][panel][k][lane] = (G g Gᵀ)[position]. */
import { type Expr, i32, type Local, v128 } from '../assembler/assemble.ts';
import { kernel, words } from '../kernel.ts';
import { min } from '../loops/digits.ts';
import { type Packable, readers } from '../loops/halves.ts';
import { transpose } from '../product/pack.ts';
import { alongWeights, range, type V128 } from './transforms.ts';

const weightWords = words(['w rowStride columnStride kStride laneStride lanes k kPerUnit u uPosition']);

/**
 * u[position][panel][k][width] = G g Gᵀ; unit = `kPerUnit` steps of k of all panels, so that what is read of neighbouring
 * panels is still in the first-level cache. Either lanes or k must be contiguous. Lanes beyond the last are unspecified. May
 * read a panel past the source.
 */
export const weightTransform = (width: number, type: Packable) => {
  const { bytes, four } = readers[type];
  return kernel(`winogradWeights${width} ${type}`, weightWords, ({ f, start, end, scratch, locals }) => {
    const w = locals();
    const keep = (e: Expr<'v128'>): V128 => f.let(e);
    const [unit, k, step] = f.locals('i32');
    const taps = range(9).map((tap) =>
      f.let(i32.add(i32.mul(w.rowStride, Math.floor(tap / 3)), i32.mul(w.columnStride, tap % 3))),
    );
    /** nine taps of four lanes → 36 positions */
    const transform = (g: readonly V128[], to: Local<'i32'>): void => {
      const half = range(3).map((x) => alongWeights([g[x]!, g[3 + x]!, g[6 + x]!], keep).map(keep));
      const at = f.let(to);
      for (const y of range(6))
        for (const value of alongWeights(
          half.map((column) => column[y]!),
          keep,
        )) {
          f.emit(v128.store(at, value));
          f.set(at, i32.add(at, w.uPosition));
        }
    };
    const panel = f.local('i32');
    const panels = f.let(i32.div_u(i32.add(w.lanes, width - 1), width));
    f.for(unit, start, end, 1, () =>
      f.for(panel, 0, panels, 1, () => {
        const firstK = f.let(i32.mul(unit, w.kPerUnit));
        const count = f.let(i32.sub(w.k, firstK));
        f.set(count, min(count, w.kPerUnit));
        const target = f.let(i32.add(w.u, i32.mul(i32.add(i32.mul(panel, w.k), firstK), width * 4)));
        const source = f.let(i32.add(w.w, i32.mul(firstK, w.kStride)));
        for (let q = 0; q < width; q += 4) {
          const to = f.let(i32.add(target, q * 4));
          const firstLane = f.let(i32.add(i32.mul(panel, width), q));
          f.if(
            i32.eq(w.laneStride, bytes),
            () => {
              const from = f.let(i32.add(source, i32.mul(firstLane, bytes)));
              f.for(k, 0, count, 1, () => {
                transform(
                  taps.map((tap) => f.let(four(f, i32.add(from, tap)))),
                  to,
                );
                f.set(from, i32.add(from, w.kStride));
                f.inc(to, width * 4);
              });
            },
            () => {
              const last = f.let(i32.sub(w.lanes, 1));
              const lanes = range(4).map((i) => {
                const lane = f.let(i32.add(firstLane, i));
                return f.let(i32.add(source, i32.mul(min(lane, last), w.laneStride)));
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
                  transform(
                    range(9).map((i) => f.let(v128.load(from, i * 16))),
                    to,
                  );
                  f.inc(from, 9 * 16);
                  f.inc(to, width * 4);
                });
                for (const lane of lanes) f.inc(lane, 4 * bytes);
              });
            },
          );
        }
      }),
    );
  });
};
