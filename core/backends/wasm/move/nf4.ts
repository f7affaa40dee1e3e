/**
 * fromNf4: weights of 4.13 bits (ir/nf4.ts) as f32. Limited by memory: half a byte in, four out. Sixteen codes at a time
 * pick the four bytes of their levels out of four registers, which shuffles join to floats.
 */
import { NF4_BLOCK, NF4_DECADES, NF4_GROUP, NF4_HEAD, NF4_LEVELS, NF4_WORDS, nf4Words } from '../../../ir/nf4.ts';
import type { Attrs } from '../../../ir/tensor.ts';
import { isContiguous, sizeOf, type View } from '../../../ir/view.ts';
import { call, type Expr, type FunctionBuilder, f32, f32x4, i32, i32x4, select, v128 } from '../assembler/assemble.ts';
import { type Address, kernel, nothing, type Placed, type Plan, type WasmKernel, words } from '../kernel.ts';
import { cutUnits, readAll, unitNames, type WalkAxis, walkNames, walkUnits, walkWords } from '../loops/walk.ts';
import { fetchCommand } from '../product/fetch.ts';
import { SERIAL_WORK } from '../product/units.ts';

const GROUP_BYTES = 4 * NF4_WORDS;
const HEAD_BYTES = 4 * NF4_HEAD;
/** the groups' scale and mean, before the codes of scales */
const CODES_AT = 8;

/** byte k of every level */
const planeOf = (k: number): Expr<'v128'> => {
  const bytes = new Uint8Array(Float32Array.from(NF4_LEVELS).buffer);
  const plane = Int32Array.from({ length: 4 }, (_, word) =>
    [0, 1, 2, 3].reduce((all, i) => all | (bytes[4 * (4 * word + i) + k]! << (8 * i)), 0),
  );
  return i32x4.const(plane[0]!, plane[1]!, plane[2]!, plane[3]!);
};
type V = Expr<'v128'>;
const PAIRS_LOW = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
const PAIRS_HIGH = PAIRS_LOW.map((i) => i + 8);
const WORDS_LOW = [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23];
const WORDS_HIGH = WORDS_LOW.map((i) => i + 8);
/** sixteen codes, one a byte → four times four levels */
function levelsOf(f: FunctionBuilder, planes: readonly V[], codes: V): readonly V[] {
  const at = f.let(codes);
  const [a, b, c, d] = planes.map((plane) => f.let(v128.swizzle8(plane, at)));
  return [PAIRS_LOW, PAIRS_HIGH].flatMap((pairs) => {
    const low = f.let(v128.shuffle8(a!, b!, pairs));
    const high = f.let(v128.shuffle8(c!, d!, pairs));
    return [v128.shuffle8(low, high, WORDS_LOW), v128.shuffle8(low, high, WORDS_HIGH)];
  });
}

/** what the levels of a block are multiplied by; `nf4ScaleCode` step by step */
function scaleOf(f: FunctionBuilder, group: Expr<'i32'>, block: Expr<'i32'>): Expr<'f32'> {
  const code = f.let(i32.sub(i32.load8_u(i32.add(group, block), CODES_AT), 127));
  const negative = f.let(i32.lt_s(code, 0));
  const p = f.let(select(negative, i32.sub(0, code), code));
  const decade = f.let(i32.sub(31, i32.clz(i32.or(p, 1))));
  const power = f.let(i32.shl(1, decade));
  const step = f32.div(f32.add(f32.convert_i32_s(i32.sub(p, power)), 0.5), f32.convert_i32_s(power));
  const ten = NF4_DECADES.reduce<Expr<'f32'>>(
    (known, value, i) => (i === 0 ? f32.const(value) : select(i32.ge_s(decade, i), f32.const(value), known)),
    f32.const(0),
  );
  const size = f.let(f32.mul(f32.add(Math.fround(0.1), f32.mul(Math.fround(0.9), step)), ten));
  const edge = f.let(select(i32.eq(p, 128), f32.const(1), size));
  const whole = f.let(select(i32.eqz(p), f32.const(0), edge));
  const signed = select(negative, f32.neg(whole), whole);
  return f32.add(f32.mul(signed, f32.load(group)), f32.load(group, 4));
}
/** one weight of a group, by its number there */
function oneWeight(f: FunctionBuilder, planes: readonly V[], group: Expr<'i32'>, inside: Expr<'i32'>): Expr<'f32'> {
  const i = f.let(inside);
  const byte = i32.load8_u(i32.add(group, i32.shr_u(i, 1)), HEAD_BYTES);
  const code = f.let(i32.and(i32.shr_u(byte, i32.shl(i32.and(i, 1), 2)), 15));
  const parts = planes.map((plane, k) =>
    i32.shl(i32.and(i32x4.extract_lane(v128.swizzle8(plane, i32x4.splat(code)), 0), 255), 8 * k),
  );
  const level = f32.reinterpret_i32(parts.reduce((a, b) => i32.or(a, b)));
  return f32.mul(level, scaleOf(f, group, i32.shr_u(i, 6)));
}
const planesOf = (f: FunctionBuilder): readonly V[] => [0, 1, 2, 3].map((k) => f.let(planeOf(k)));

const groupWords = words(['x y first last group outside']);
/** y = the weights first ≤ i < last, first at the beginning of a block; a unit is a group, fetched when x lies outside */
const widenGroups = kernel('fromNf4', groupWords, ({ f, fetch, start, end, scratch, locals }) => {
  const w = locals();
  const planes = planesOf(f);
  const u = f.local('i32');
  f.for(u, start, end, 1, () => {
    const number = f.let(i32.add(w.group, u));
    const base = f.let(i32.mul(number, NF4_GROUP));
    const i = f.let(i32.sub(w.first, base));
    f.if(i32.lt_s(i, 0), () => f.set(i, 0));
    const stop = f.let(i32.sub(w.last, base));
    f.if(i32.gt_s(stop, NF4_GROUP), () => f.set(stop, NF4_GROUP));
    const x = f.let(i32.add(w.x, i32.mul(number, GROUP_BYTES)));
    f.if(w.outside, () => {
      f.emit(call(fetch, [x, scratch, i32.add(HEAD_BYTES, i32.shr_u(i32.add(stop, 1), 1))]));
      f.set(x, scratch);
    });
    const y = f.let(i32.add(w.y, i32.shl(i32.sub(i32.add(base, i), w.first), 2)));
    const nibble = i32x4.splat(0x0f0f0f0f);
    f.while(i32.le_s(i32.add(i, NF4_BLOCK), stop), () => {
      const scale = f.let(f32x4.splat(scaleOf(f, x, i32.shr_u(i, 6))));
      const codes = f.let(i32.add(x, i32.shr_u(i, 1)));
      for (let part = 0; part < 2; part++) {
        const all = f.let(v128.load(codes, HEAD_BYTES + 16 * part));
        const even = f.let(v128.and(all, nibble));
        const odd = f.let(v128.and(i32x4.shr_u(all, 4), nibble));
        for (const [half, pairs] of [PAIRS_LOW, PAIRS_HIGH].entries())
          for (const [k, level] of levelsOf(f, planes, v128.shuffle8(even, odd, pairs)).entries())
            f.emit(v128.store(y, f32x4.mul(level, scale), 128 * part + 64 * half + 16 * k));
      }
      f.inc(i, NF4_BLOCK);
      f.inc(y, 4 * NF4_BLOCK);
    });
    f.while(i32.lt_s(i, stop), () => {
      f.emit(f32.store(y, oneWeight(f, planes, x, i)));
      f.inc(i, 1);
      f.inc(y, 4);
    });
  });
});

/** the same through any strides, one weight at a time; `at` is the number of a weight */
const widenView = (rank: number) => {
  const layout = words([...unitNames, 'x', 'at', 'y', ...walkNames('w', rank, ['at', 'y'])]);
  return kernel(`fromNf4 of a view, ${rank} axes`, layout, (code) => {
    const { f } = code;
    const planes = planesOf(f);
    const { x, at, y } = readAll(code, ['x', 'at', 'y']);
    walkUnits(code, 'w', rank, { at, y }, () => {
      const group = f.let(i32.add(x, i32.mul(i32.shr_u(at, 14), GROUP_BYTES)));
      f.emit(f32.store(y, oneWeight(f, planes, group, i32.and(at, NF4_GROUP - 1))));
    });
  });
};

/** a view whose weights lie apart, or which begins within a block */
const widenApart = (x: Placed, y: Placed, workspace: Address): Plan => {
  const { shape, offset } = x.view;
  const [first, last] = extent(x.view);
  // outside, the groups it spans are fetched first
  const skipped = x.outside ? Math.floor((offset + first) / NF4_GROUP) : 0;
  const bytes = x.outside ? 4 * nf4Words(offset + last + 1) - skipped * GROUP_BYTES : 0;
  const axes = shape.map(
    (size, i): WalkAxis => ({ size, strides: { at: x.view.strides[i]!, y: y.view.strides[i]! * 4 } }),
  );
  const { grid, ...unit } = cutUnits(sizeOf(shape), 60);
  const at = offset - skipped * NF4_GROUP;
  const values = { ...unit, x: x.outside ? workspace : x.at, at, y: y.at, ...walkWords('w', axes, ['at', 'y']) };
  const from = { base: x.at.base, offset: x.at.offset + skipped * GROUP_BYTES };
  return {
    bytes,
    commands: [
      ...(x.outside ? [fetchCommand(from, workspace, bytes)] : []),
      widenView(shape.length).command(values, grid),
    ],
  };
};
/** first and last weight that a view reads, from its own first on */
const extent = ({ shape, strides }: View): readonly [number, number] => {
  const ends = shape.map((size, i) => (size - 1) * strides[i]!);
  return [ends.reduce((n, end) => n + Math.min(0, end), 0), ends.reduce((n, end) => n + Math.max(0, end), 0)];
};

const fromNf4: WasmKernel<Attrs> = {
  strided: [true],
  plan: ({ inputs, outputs, workspace }) => {
    const [x, y] = [inputs[0]!, outputs[0]!];
    const count = sizeOf(x.view.shape);
    if (count === 0) return nothing;
    const { offset: first } = x.view;
    if (!isContiguous(x.view) || first % NF4_BLOCK !== 0) return widenApart(x, y, workspace);
    const group = Math.floor(first / NF4_GROUP);
    const values = { x: x.at, y: y.at, first, last: first + count, group, outside: x.outside ? 1 : 0 };
    const grid = Math.ceil((first + count) / NF4_GROUP) - group;
    return { bytes: 0, commands: [widenGroups.command(values, grid, count * 4 < SERIAL_WORK)] };
  },
};
export const nf4Kernels = { fromNf4 };
