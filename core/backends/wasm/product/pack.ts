/**
 * Packing: a matrix x[lane, k] with any strides becomes panels dst[panel][k][width] of `width` lanes, the order in
 * which the register tile reads them. Transposes cost nothing extra: they are absorbed here.
 */
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
import { type KernelCommand, kernel, type Word, words } from '../kernel.ts';
import { SERIAL_WORK } from './units.ts';

/** stores dst[k][lane] for 4 k and the lanes of `rows` (2 or 4 vectors along k), `stride` bytes from k to k + 1 */
export const transpose = (
  f: FunctionBuilder,
  rows: readonly Local<'v128'>[],
  dst: Expr<'i32'>,
  offset: number,
  stride: number,
): void => {
  const [a, b, c, d] = rows as [Local<'v128'>, Local<'v128'>, Local<'v128'> | undefined, Local<'v128'> | undefined];
  for (const half of [0, 1]) {
    const pairs: [number, number, number, number] = half === 0 ? [0, 4, 1, 5] : [2, 6, 3, 7];
    const ab = f.let(v128.shuffle32(a, b, pairs));
    const at = offset + 2 * half * stride;
    if (c && d) {
      const cd = f.let(v128.shuffle32(c, d, pairs));
      f.emit(v128.store(dst, v128.shuffle32(ab, cd, [0, 1, 4, 5]), at));
      f.emit(v128.store(dst, v128.shuffle32(ab, cd, [2, 3, 6, 7]), at + stride));
    } else {
      f.emit(v128.store64_lane(dst, ab, 0, at), v128.store64_lane(dst, ab, 1, at + stride));
    }
  }
};

/** [first lane, lanes] in vectors, then a pair, then single lanes */
const chunks = (width: number): readonly (readonly [number, number])[] => {
  const result: [number, number][] = [];
  for (let lane = 0; lane < width; ) {
    const size = [4, 2, 1].find((n) => lane + n <= width)!;
    result.push([lane, size]);
    lane += size;
  }
  return result;
};

/**
 * packPanel(dst, src, lanes, k, laneStride, kStride): one panel, strides in bytes. Lanes beyond `lanes` (≥ 1) are
 * unspecified: the tile computes with them and throws the results away. May read up to a panel's width past the source.
 */
export const packPanelFunction = (m: Assembler, width: number): Func =>
  m.func('', ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'], 'void', (f, dst, src, lanes, k, laneStride, kStride) => {
    const i = f.local('i32');
    const parts = chunks(width);
    f.if(i32.eq(laneStride, 4), () => {
      f.for(i, 0, k, 1, () => {
        for (const [lane, size] of parts) {
          const at = lane * 4;
          if (size === 4) f.emit(v128.store(dst, v128.load(src, at), at));
          else if (size === 2) f.emit(v128.store64_lane(dst, v128.load64_splat(src, at), 0, at));
          else f.emit(i32.store(dst, i32.load(src, at), at));
        }
        f.set(src, i32.add(src, kStride));
        f.inc(dst, width * 4);
      });
      f.return();
    });
    const pointers = Array.from({ length: width }, (_, lane) => {
      const p = f.let(src);
      // Missing lanes repeat the first one, which is readable.
      f.if(i32.lt_u(lane, lanes), () => f.set(p, i32.add(src, i32.mul(laneStride, lane))));
      return p;
    });
    f.set(i, 0);
    f.if(i32.eq(kStride, 4), () =>
      f.for(i, 0, f.let(i32.and(k, -4)), 4, () => {
        for (const [lane, size] of parts) {
          const rows = pointers.slice(lane, lane + size).map((p) => f.let(v128.load(p)));
          if (size > 1) transpose(f, rows, dst, lane * 4, width * 4);
          else
            for (const step of [0, 1, 2, 3] as const)
              f.emit(v128.store32_lane(dst, rows[0]!, step, lane * 4 + step * width * 4));
        }
        for (const p of pointers) f.inc(p, 16);
        f.inc(dst, width * 16);
      }),
    );
    f.while(i32.lt_u(i, k), () => {
      for (const [lane, p] of pointers.entries()) {
        f.emit(i32.store(dst, i32.load(p), lane * 4));
        f.inc(p, kStride);
      }
      f.inc(dst, width * 4);
      f.inc(i, 1);
    });
  });

const packWords = words(['source laneStride kStride groupStride lanes k stretches stretchStride target panels']);

/** target[group][panel][stretch][k][width]; unit = group·panels + panel */
const packKernel = (width: number) =>
  kernel(`pack${width}`, packWords, ({ f, m, start, end, locals }) => {
    const packPanel = packPanelFunction(m, width);
    const w = locals();
    const stretchBytes = f.let(i32.mul(w.k, width * 4));
    const [u, s] = f.locals('i32');
    f.for(u, start, end, 1, () => {
      const group = f.let(i32.div_u(u, w.panels));
      const first = f.let(i32.mul(i32.sub(u, i32.mul(group, w.panels)), width));
      const left = f.let(i32.sub(w.lanes, first));
      const src = f.let(i32.add(i32.add(w.source, i32.mul(group, w.groupStride)), i32.mul(first, w.laneStride)));
      const dst = f.let(i32.add(w.target, i32.mul(u, i32.mul(w.stretches, stretchBytes))));
      f.for(s, 0, w.stretches, 1, () => {
        f.emit(call(packPanel, [dst, src, left, w.k, w.laneStride, w.kStride]));
        f.set(src, i32.add(src, w.stretchStride));
        f.set(dst, i32.add(dst, stretchBytes));
      });
    });
  });

/** what is packed: strides in bytes */
export interface Packing {
  readonly source: Word;
  readonly laneStride: number;
  readonly kStride: number;
  readonly groupStride: number;
  readonly lanes: number;
  /** length of a stretch of k with a constant stride, and the number of stretches with their own (taps of a kernel) */
  readonly k: number;
  readonly stretches: number;
  readonly stretchStride: number;
  readonly target: Word;
  readonly groups: number;
}
/** Command that packs a matrix into panels of `width` lanes. */
export const pack = (width: number, { groups, ...packing }: Packing): KernelCommand => {
  const { lanes, k, stretches } = packing;
  const panels = Math.ceil(lanes / width);
  const alone = lanes * k * stretches * groups < SERIAL_WORK;
  return packKernel(width).command({ ...packing, panels }, panels * groups, alone);
};
