/**
 * Kernels over pictures x[n,h,w,c] in strips: a unit is a strip of whole groups of channels of one picture. A strip is
 * visited column by column, a few vectors of channels at a time, so that sums and factors of a channel stay in registers
 * while all pixels pass; sums per channel then lie in the thread's scratch memory and are added up per group.
 */
import { normSizes } from '../../../fused/norm.ts';
import { gcd } from '../../../ir/view.ts';
import { type Expr, f32, f64, i32, type Local, memoryFill, select } from '../assembler/assemble.ts';
import { type Kernel, type KernelCode, kernel, nothing, type Plan, type Word, type Words } from '../kernel.ts';
import { lastVector, type RowVector, wholeVector } from '../loops/rows.ts';
import { readAll, type WalkAxis, walkUnits, walkWords } from '../loops/walk.ts';

type I32 = Local<'i32'>;
/** fewest channels of a strip: a cache line */
const LEAST = 16;
/** most, unless one group is wider: whole rows of pixels are read fastest, even where a strip is larger than L2 */
const MOST = 320;
/** strips all pictures together should at least give */
const STRIPS = 8;
/** pixels visited column by column before the next ones: rows of a block stay in L1, blocks pass as memory lies */
const BLOCK = 8;
/** pictures of fewer numbers stay on one thread */
const SMALL = 16384;

export const SHARED = ['pixels', 'groupSize', 'strip', 'lastStrip', 'rowBytes', 'arrayBytes'] as const;

/** what the body of a strip works with */
export interface Strip<P extends string> extends KernelCode<string> {
  /** pointers at the strip's first channel (or group) */
  readonly at: Readonly<Record<P, I32>>;
  /** channels of this strip */
  readonly channels: I32;
  /** a padded array of one number per channel, in scratch */
  array(index: number): I32;
}

export const stripKernel = <P extends string>(
  name: string,
  layout: Words<string>,
  pointers: readonly P[],
  body: (strip: Strip<P>) => void,
): Kernel =>
  kernel(name, layout, (code) => {
    const { f, read, scratch } = code;
    const moving = readAll(code, pointers);
    const array = (index: number): I32 => f.let(i32.add(scratch, i32.mul(read('arrayBytes'), index)));
    walkUnits(code, 'w', 2, moving, ([, strip]) => {
      const channels = f.let(read('strip'));
      f.if(i32.eq(i32.add(strip!, 1), read('w1.size')), () => f.set(channels, read('lastStrip')));
      body({ ...code, at: moving, channels, array });
    });
  });

/** makes arrays of a strip's scratch zero, for sums to begin with */
export const clear = <P extends string>({ f, read }: Strip<P>, arrays: readonly I32[]): void => {
  for (const a of arrays) f.emit(memoryFill(a, i32.const(0), read('arrayBytes')));
};

/** one vector of a column: how it is read and written at the pointers, which stand at the column's first channel */
export type ColumnBody = (
  v: RowVector,
  channel: readonly I32[],
) => {
  /** at every pixel */
  pixel(pixel: readonly I32[]): void;
  /** after the last one of a block */
  end?(): void;
};

/**
 * Visits a strip in blocks of pixels and these in columns of `wide` vectors. `open` is called for each vector of a column
 * with pointers of the per-channel arrays; what it loads (sums so far, too) stays in registers for the block, so `wide`
 * times its values should fit into about twelve.
 */
export const columns = <P extends string>(
  { f, m, read, channels }: Strip<P>,
  wide: number,
  pixel: readonly I32[],
  channel: readonly I32[],
  open: ColumnBody,
): void => {
  const blocks = pixel.map((p) => f.let(p));
  const after = f.let(read('pixels'));
  const rowBytes = f.let(read('rowBytes'));
  const [height, blockBytes] = f.locals('i32');
  f.while(after, () => {
    f.set(height, select(i32.lt_u(after, BLOCK), after, i32.const(BLOCK)));
    const rest = f.let(channels);
    const pixels = blocks.map((p) => f.let(p));
    const along = channel.map((p) => f.let(p));
    const column = (vectors: readonly RowVector[]): void => {
      const bodies = vectors.map((v) => open(v, along));
      const moving = pixels.map((p) => f.let(p));
      const left = f.let(height);
      f.while(left, () => {
        for (const b of bodies) b.pixel(moving);
        for (const p of moving) f.inc(p, rowBytes);
        f.inc(left, -1);
      });
      for (const b of bodies) b.end?.();
    };
    const round = (vectors: number): void => {
      column(Array.from({ length: vectors }, (_, u) => wholeVector(u)));
      for (const p of [...pixels, ...along]) f.inc(p, 16 * vectors);
      f.inc(rest, -4 * vectors);
    };
    if (wide > 1) f.while(i32.ge_u(rest, 4 * wide), () => round(wide));
    f.while(i32.ge_u(rest, 4), () => round(1));
    f.if(rest, () => column([lastVector(m, rest)]));
    f.set(blockBytes, i32.mul(height, rowBytes));
    for (const p of blocks) f.inc(p, blockBytes);
    f.inc(after, i32.sub(0, height));
  });
};

/** For every group: the sum of each array over its channels (in f64), and then `use(sums, group, its first channel)`. */
export const perGroup = <P extends string>(
  { f, read, channels }: Strip<P>,
  arrays: readonly I32[],
  use: (sums: readonly Local<'f64'>[], group: I32, first: I32) => void,
): void => {
  const [first, group, i] = f.locals('i32');
  f.set(group, 0);
  f.for(first, 0, channels, read('groupSize'), () => {
    const sums = arrays.map(() => f.local('f64'));
    for (const s of sums) f.set(s, 0);
    f.for(i, first, i32.add(first, read('groupSize')), 1, () => {
      for (const [k, s] of sums.entries())
        f.set(s, f64.add(s, f64.promote_f32(f32.load(i32.add(arrays[k]!, i32.shl(i, 2))))));
    });
    use(sums, group, first);
    f.inc(group, 1);
  });
};
/** array[first … first + groupSize) = value */
export const spread = <P extends string>({ f, read }: Strip<P>, array: I32, first: I32, value: Local<'f32'>): void => {
  const i = f.local('i32');
  f.for(i, first, i32.add(first, read('groupSize')), 1, () => f.emit(f32.store(i32.add(array, i32.shl(i, 2)), value)));
};
export const numbersInGroup = <P extends string>({ read }: Strip<P>): Expr<'f64'> =>
  f64.convert_i32_u(i32.mul(read('pixels'), read('groupSize')));

/** channels of a strip: whole groups, whole vectors where possible */
const stripWidth = (pictures: number, channels: number, groups: number): number => {
  const size = channels / groups;
  const step = (size * 4) / gcd(size, 4);
  if (step >= channels) return channels;
  const wanted = Math.max(LEAST, Math.min(MOST, Math.ceil((pictures * channels) / STRIPS)));
  const least = Math.max(1, Math.floor(wanted / step)) * step;
  // as equal as they can be
  const strips = Math.ceil(channels / least);
  return Math.min(channels, Math.ceil(channels / strips / step) * step);
};

export interface StripShapes {
  readonly shape: readonly number[];
  readonly groups: number;
  /** addresses of what has all pixels, a number per group of a picture, per channel, per channel of a picture */
  readonly pixels: Readonly<Record<string, Word>>;
  readonly perGroup: Readonly<Record<string, Word>>;
  readonly perChannel: Readonly<Record<string, Word>>;
  readonly perPictureChannel?: Readonly<Record<string, Word>>;
  readonly rest?: Readonly<Record<string, Word>>;
}
export const stripPlan = (kernel: Kernel, call: StripShapes): Plan => {
  const { groups, pixels, perGroup: ofGroup, perChannel, perPictureChannel = {} } = call;
  const { n, pixels: count, width: size } = normSizes(call.shape, groups);
  const c = groups * size;
  if (n * count * c === 0) return nothing;
  const strip = stripWidth(n, c, groups);
  const strips = Math.ceil(c / strip);
  const all = { ...pixels, ...ofGroup, ...perChannel, ...perPictureChannel };
  const names = Object.keys(all);
  /** bytes by which each kind of pointer moves */
  const strides = (picture: number, group: number, channel: number, pictureChannel: number) =>
    Object.fromEntries(
      names.map((p) => [
        p,
        p in pixels ? picture : p in ofGroup ? group : p in perPictureChannel ? pictureChannel : channel,
      ]),
    );
  const axes: WalkAxis[] = [
    { size: n, strides: strides(count * c * 4, groups * 4, 0, c * 4) },
    { size: strips, strides: strides(strip * 4, (strip / size) * 4, strip * 4, strip * 4) },
  ];
  const values = {
    unit: 1,
    items: n * strips,
    pixels: count,
    groupSize: size,
    strip,
    lastStrip: c - (strips - 1) * strip,
    rowBytes: c * 4,
    arrayBytes: Math.ceil(strip / 16) * 64,
    ...all,
    ...call.rest,
    ...walkWords('w', axes, names),
  };
  return { bytes: 0, commands: [kernel.command(values, n * strips, n * count * c < SMALL)] };
};
