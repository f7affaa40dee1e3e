/** randomBits: Threefry-2x32-20, four blocks at a time. */
import { sizeOf } from '../../../ir/view.ts';
import type { BitsAttrs } from '../../../ops/random.ts';
import { type Expr, type FunctionBuilder, i32, i32x4, type Local, v128 } from '../assembler/assemble.ts';
import { kernel, nothing, type WasmKernel, words } from '../kernel.ts';
import { storeTail } from '../loops/tails.ts';
import { cutUnits, readAll, unitNames, type WalkAxis, walkNames, walkUnits, walkWords } from '../loops/walk.ts';

type V = Local<'v128'>;
const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24];
const PARITY = 0x1bd11bda;
/** blocks in one item: 2 words each */
const BLOCKS = 1024;
const POINTERS = ['key', 'offset', 'y'] as const;
const bitsWords = words([...unitNames, ...POINTERS, 'count', 'stream', ...walkNames('w', 2, POINTERS)]);

/** the two words of four blocks; key and counter in lanes. Source: Salmon et al. 2011, as in core/ops/random.ts */
const threefry = (f: FunctionBuilder, k0: V, k1: V, c0: Expr<'v128'>, c1: Expr<'v128'>): [V, V] => {
  const ks = [k0, k1, f.let(v128.xor(v128.xor(k0, k1), i32x4.splat(PARITY)))];
  const x = f.let(i32x4.add(c0, k0));
  const y = f.let(i32x4.add(c1, k1));
  for (let round = 0; round < 20; round++) {
    const r = ROTATIONS[round % 8]!;
    f.set(x, i32x4.add(x, y));
    f.set(y, v128.xor(v128.or(i32x4.shl(y, r), i32x4.shr_u(y, 32 - r)), x));
    if (round % 4 === 3) {
      const s = (round + 1) / 4;
      f.set(x, i32x4.add(x, ks[s % 3]!));
      f.set(y, i32x4.add(i32x4.add(y, ks[(s + 1) % 3]!), s));
    }
  }
  return [x, y];
};

const bitsKernel = kernel('randomBits', bitsWords, (code) => {
  const { f, m, read, splat } = code;
  const pointers = readAll(code, POINTERS);
  const stream = f.let(splat('stream'));
  walkUnits(code, 'w', 2, pointers, ([, piece]) => {
    const k0 = f.let(v128.load32_splat(pointers.key));
    const k1 = f.let(v128.load32_splat(pointers.key, 4));
    const first = f.let(i32.mul(piece!, BLOCKS));
    const counter = f.let(i32x4.add(i32x4.splat(i32.add(i32.load(pointers.offset), first)), i32x4.const(0, 1, 2, 3)));
    const left = f.let(i32.sub(read('count'), i32.shl(first, 1)));
    f.if(i32.gt_u(left, 2 * BLOCKS), () => f.set(left, 2 * BLOCKS));
    const out = f.let(pointers.y);
    f.while(left, () => {
      const [x, y] = threefry(f, k0, k1, counter, stream);
      f.set(counter, i32x4.add(counter, 4));
      const low = f.let(v128.shuffle32(x, y, [0, 4, 1, 5]));
      const high = v128.shuffle32(x, y, [2, 6, 3, 7]);
      f.if(
        i32.ge_u(left, 8),
        () => {
          f.emit(v128.store(out, low), v128.store(out, high, 16));
          f.inc(out, 32);
          f.inc(left, -8);
        },
        () => {
          f.if(i32.ge_u(left, 4), () => {
            f.emit(v128.store(out, low));
            f.inc(out, 16);
            f.inc(left, -4);
            f.set(low, high);
          });
          f.if(left, () => f.emit(storeTail(m, out, low, left)));
          f.set(left, 0);
        },
      );
    });
  });
});

/** y[rows, count] from keys u32[rows, 2] and offsets u32[rows]. Cost: some 15 instructions a word. */
const randomBits: WasmKernel<BitsAttrs> = {
  strided: [],
  plan: ({ inputs: [key, offset], outputs: [y], attrs: { count, stream } }) => {
    const rows = sizeOf(offset!.view.shape);
    if (rows * count === 0) return nothing;
    const pieces = Math.ceil(count / (2 * BLOCKS));
    const axes: WalkAxis[] = [
      { size: rows, strides: { key: 8, offset: 4, y: count * 4 } },
      { size: pieces, strides: { y: BLOCKS * 8 } },
    ];
    const { grid, ...unit } = cutUnits(rows * pieces, Math.min(count, 2 * BLOCKS) * 15 + 100);
    const places = { key: key!.at, offset: offset!.at, y: y!.at };
    const values = { ...unit, ...places, count, stream, ...walkWords('w', axes, POINTERS) };
    return { bytes: 0, commands: [bitsKernel.command(values, grid)] };
  },
};
export const randomKernels = { randomBits };
