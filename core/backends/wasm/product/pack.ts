/**
 * Packing: a matrix x[lane, k] with any strides becomes panels dst[panel][k][width] of `width` lanes, the order in
 * which the register tile reads them. Transposes cost nothing extra: they are absorbed here. So is the widening of halves,
 * which are fetched, block by block, from the memory outside.
 */
import type { DType } from '../../../ir/dtype.ts';
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
import { type KernelCommand, kernel, type Placed, type Word, words } from '../kernel.ts';
import { digit, min } from '../loops/digits.ts';
import { type Packable, readers } from '../loops/halves.ts';
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
 * packPanel(dst, src, lanes, k, laneStride, kStride): one panel of f32, strides in bytes. Lanes beyond `lanes` (≥ 1) are
 * unspecified: the tile computes with them and throws the results away. May read up to a panel's width past the source.
 * Halves take panels of whole vectors.
 */
export const packPanelFunction = (m: Assembler, width: number, type: Packable = 'f32'): Func => {
  const { bytes, four, move } = readers[type];
  return m.func(
    '',
    ['i32', 'i32', 'i32', 'i32', 'i32', 'i32'],
    'void',
    (f, dst, src, lanes, k, laneStride, kStride) => {
      const i = f.local('i32');
      const parts = chunks(width);
      f.if(i32.eq(laneStride, bytes), () => {
        f.for(i, 0, k, 1, () => {
          for (const [lane, size] of parts) {
            const at = lane * 4;
            if (size === 4) f.emit(v128.store(dst, four(f, src, lane * bytes), at));
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
      f.if(i32.eq(kStride, bytes), () =>
        f.for(i, 0, f.let(i32.and(k, -4)), 4, () => {
          for (const [lane, size] of parts) {
            const rows = pointers.slice(lane, lane + size).map((p) => f.let(four(f, p)));
            if (size > 1) transpose(f, rows, dst, lane * 4, width * 4);
            else
              for (const step of [0, 1, 2, 3] as const)
                f.emit(v128.store32_lane(dst, rows[0]!, step, lane * 4 + step * width * 4));
          }
          for (const p of pointers) f.inc(p, 4 * bytes);
          f.inc(dst, width * 16);
        }),
      );
      f.while(i32.lt_u(i, k), () => {
        for (const [lane, p] of pointers.entries()) {
          f.emit(move(f, dst, p, lane * 4));
          f.inc(p, kStride);
        }
        f.inc(dst, width * 4);
        f.inc(i, 1);
      });
    },
  );
};

const packWords = words([
  'source laneStride kStride groupStride lanes k stretches stretchStride target panels',
  'outside lanesPerUnit kPerUnit laneBlocks kBlocks',
]);
/**
 * target[group][panel][stretch][k][width]; unit = block of a stretch: the lanes of a panel and all of k, or all lanes and
 * some of k, whichever lies in one piece, so that one call fetches it
 */
const packKernel = (width: number, type: Packable) =>
  kernel(`pack${width} ${type}`, packWords, ({ f, m, fetch, start, end, scratch, locals }) => {
    const packPanel = packPanelFunction(m, width, type);
    const w = locals();
    const [u, lane] = f.locals('i32');
    const stretchBytes = f.let(i32.mul(w.k, width * 4));
    const panelBytes = f.let(i32.mul(w.stretches, stretchBytes));
    f.for(u, start, end, 1, () => {
      const group = f.let(u);
      const firstK = f.let(i32.mul(digit(f, group, w.kBlocks), w.kPerUnit));
      const firstLane = f.let(i32.mul(digit(f, group, w.laneBlocks), w.lanesPerUnit));
      const stretch = digit(f, group, w.stretches);
      const endLane = f.let(i32.add(firstLane, w.lanesPerUnit));
      f.set(endLane, min(endLane, w.lanes));
      const k = f.let(i32.sub(w.k, firstK));
      f.set(k, min(k, w.kPerUnit));
      const src = f.let(i32.add(w.source, i32.add(i32.mul(group, w.groupStride), i32.mul(stretch, w.stretchStride))));
      f.set(src, i32.add(src, i32.add(i32.mul(firstLane, w.laneStride), i32.mul(firstK, w.kStride))));
      f.if(w.outside, () => {
        const toLastLane = i32.mul(i32.sub(i32.sub(endLane, firstLane), 1), w.laneStride);
        const bytes = i32.add(i32.add(toLastLane, i32.mul(i32.sub(k, 1), w.kStride)), readers[type].bytes);
        f.emit(call(fetch, [src, scratch, bytes]));
        f.set(src, scratch);
      });
      const panel = f.let(i32.add(i32.mul(group, w.panels), i32.div_u(firstLane, width)));
      const dst = f.let(i32.add(w.target, i32.add(i32.mul(panel, panelBytes), i32.mul(stretch, stretchBytes))));
      f.set(dst, i32.add(dst, i32.mul(firstK, width * 4)));
      f.for(lane, firstLane, endLane, width, () => {
        f.emit(call(packPanel, [dst, src, i32.sub(endLane, lane), k, w.laneStride, w.kStride]));
        f.set(src, i32.add(src, i32.mul(w.laneStride, width)));
        f.set(dst, i32.add(dst, panelBytes));
      });
    });
  });

/** bytes of a block about: fetched, it stays in the second-level cache */
const BLOCK_BYTES = 2 ** 16;
/** steps of k in a block at least: some cache lines of every panel, which lie in as many pages as there are panels */
const LEAST_STEPS = 16;
/** The units of a packing, strides in bytes; `bytes`: what one of them spans. */
const blocksOf = (width: number, lanes: number, k: number, laneStride: number, kStride: number, size: number) => {
  const alongLanes = laneStride === size && kStride > 0;
  const lanesPerUnit = alongLanes ? lanes : width;
  const kPerUnit = alongLanes ? Math.min(k, Math.max(LEAST_STEPS, Math.floor(BLOCK_BYTES / kStride))) : k;
  return {
    units: { lanesPerUnit, kPerUnit, laneBlocks: Math.ceil(lanes / lanesPerUnit), kBlocks: Math.ceil(k / kPerUnit) },
    bytes: (Math.min(lanes, lanesPerUnit) - 1) * laneStride + (kPerUnit - 1) * kStride + size,
  };
};

/** The numbers a matrix is packed from. */
export interface Source {
  readonly type: Packable;
  /** they lie outside the memory of kernels */
  readonly outside?: boolean | undefined;
}
/** what a placed operand is packed from. @throws Error for numbers that cannot be packed */
export const sourceOf = ({ dtype, outside }: Placed): Source => {
  if (!(dtype in readers)) throw new Error(`wasm: ${dtype} is not packed`);
  return { type: dtype as Packable, outside };
};
/** the most that is fetched at once: with what is read past it, it fits the scratch memory of any machine */
const MOST_BYTES = 2 ** 20;
/** lanes of the widest panel (tune.ts) */
const WIDEST = 16;
/** Whether stored numbers that lie so (strides in elements) are packed from where they are. */
export const packsStored = (
  dtype: DType,
  lanes: number,
  k: number,
  laneStride: number,
  kStride: number,
): dtype is Packable => {
  if (dtype !== 'f16' || lanes * k === 0) return false;
  const { bytes } = readers[dtype];
  const inOnePiece = Math.min(laneStride, kStride) === 1;
  return inOnePiece && blocksOf(WIDEST, lanes, k, laneStride * bytes, kStride * bytes, bytes).bytes <= MOST_BYTES;
};

/** what is packed: strides in bytes */
export interface Packing {
  readonly source: Word;
  /** Default: f32 */
  readonly from?: Source | undefined;
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
export const pack = (width: number, { groups, from, ...packing }: Packing): KernelCommand => {
  const { lanes, k, stretches, laneStride, kStride } = packing;
  const { type, outside = false }: Source = from ?? { type: 'f32' };
  const { units } = blocksOf(width, lanes, k, laneStride, kStride, readers[type].bytes);
  const values = { ...packing, ...units, panels: Math.ceil(lanes / width), outside: outside ? 1 : 0 };
  const grid = groups * stretches * units.laneBlocks * units.kBlocks;
  return packKernel(width, type).command(values, grid, lanes * k * stretches * groups < SERIAL_WORK);
};
