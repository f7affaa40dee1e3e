/**
 * groupNorm (+ SiLU) and its derivative on x[n,h,w,c]. A unit is a strip of whole groups of one picture; its sums per
 * channel lie in the thread's scratch memory, from where they are added up per group.
 */
import type { GroupNormAttrs } from '../../fused/norm.ts';
import {
  type Assembler,
  type Expr,
  type FunctionBuilder,
  f32,
  f32x4,
  f64,
  i32,
  type Local,
  memoryFill,
} from './assemble.ts';
import { f32Bits } from './machine.ts';
import { alongRow, type RowVector } from './rows.ts';
import { prepareTails } from './scalarCode.ts';
import { sigmoidF32x4, siluF32x4 } from './vectorMath.ts';
import {
  type KernelSource,
  unitNames,
  type WalkAxis,
  type Words,
  type Work,
  walkNames,
  walkUnits,
  walkWords,
  words,
} from './walk.ts';
import { at, type WasmKernel } from './wasmKernel.ts';

type I32 = Local<'i32'>;
type V = Local<'v128'>;
/** fewest channels of a strip: a cache line */
const LEAST = 16;
/** most, unless one group is wider */
const MOST = 128;
/** strips all pictures together should at least give */
const STRIPS = 8;

const SHARED = ['pixels', 'groupSize', 'strip', 'lastStrip', 'rowBytes', 'arrayBytes'] as const;
const forwardPointers = ['x', 'y', 'gamma', 'beta', 'mu', 'r'] as const;
const forwardWords = words([...unitNames, ...SHARED, 'eps', ...forwardPointers, ...walkNames('w', 2, forwardPointers)]);
const gradPointers = ['g', 'x', 'dx', 'gamma', 'beta', 'mu', 'r'] as const;
const gradWords = words([...unitNames, ...SHARED, ...gradPointers, ...walkNames('w', 2, gradPointers)]);

/** what the body of a strip works with */
interface Strip<P extends string> {
  readonly f: FunctionBuilder;
  readonly m: Assembler;
  read(word: string): Expr<'i32'>;
  readonly args: Expr<'i32'>;
  /** pointers at the strip's first channel (or group) */
  readonly at: Readonly<Record<P, I32>>;
  /** channels of this strip */
  readonly channels: I32;
  /** a padded array of one number per channel, in scratch */
  array(index: number): I32;
}

const stripKernel = <P extends string>(
  name: string,
  layout: Words,
  pointers: readonly P[],
  body: (strip: Strip<P>) => void,
): KernelSource => ({
  name,
  emit: (m) => {
    prepareTails(m);
    m.kernel(name, (f, params) => {
      const read = (word: string): Expr<'i32'> => layout.read(params.args, word);
      const moving = Object.fromEntries(pointers.map((p) => [p, f.let(read(p))])) as Record<P, I32>;
      const array = (index: number): I32 => f.let(i32.add(params.scratch, i32.mul(read('arrayBytes'), index)));
      walkUnits(f, read, params, 'w', 2, moving, ([, strip]) => {
        const channels = f.let(read('strip'));
        f.if(i32.eq(i32.add(strip!, 1), read('w1.size')), () => f.set(channels, read('lastStrip')));
        body({ f, m, read, args: params.args, at: moving, channels, array });
      });
    });
  },
});

/** Visits all pixels of a strip; `pixel` pointers move along rows of the picture, `channel` ones start anew at each. */
const sweep = <P extends string>(
  { f, m, read, channels }: Strip<P>,
  pixel: readonly I32[],
  channel: readonly I32[],
  visit: (v: RowVector, pixel: readonly I32[], channel: readonly I32[]) => void,
): void => {
  const left = f.let(read('pixels'));
  const bases = pixel.map((p) => f.let(p));
  f.while(left, () => {
    const moving = bases.map((p) => f.let(p));
    const along = channel.map((p) => f.let(p));
    alongRow(f, m, channels, [...moving, ...along], (v) => visit(v, moving, along));
    for (const p of bases) f.inc(p, read('rowBytes'));
    f.inc(left, -1);
  });
};

/** For every group: the sum of an array over its channels (in f64), and then `use(sum, group, channel pointers)`. */
const perGroup = <P extends string>(
  { f, read, channels }: Strip<P>,
  arrays: readonly I32[],
  use: (sums: readonly Local<'f64'>[], group: I32, first: I32) => void,
): void => {
  const first = f.local('i32');
  const group = f.local('i32');
  const i = f.local('i32');
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
const spread = <P extends string>({ f, read }: Strip<P>, array: I32, first: I32, value: Local<'f32'>): void => {
  const i = f.local('i32');
  f.for(i, first, i32.add(first, read('groupSize')), 1, () => f.emit(f32.store(i32.add(array, i32.shl(i, 2)), value)));
};
const numbersInGroup = <P extends string>({ read }: Strip<P>): Expr<'f64'> =>
  f64.convert_i32_u(i32.mul(read('pixels'), read('groupSize')));
const add = (f: FunctionBuilder, v: RowVector, sum: I32, value: Expr<'v128'>): void =>
  f.emit(v.storePadded(sum, f32x4.add(v.loadPadded(sum), value)));

const forwardKernel = (silu: boolean): KernelSource =>
  stripKernel(silu ? 'groupNorm silu' : 'groupNorm', forwardWords, forwardPointers, (strip) => {
    const { f, m, at: p, array, read, channels } = strip;
    const [sum, mean, scale] = [array(0), array(1), array(2)];
    const clear = (): void => f.emit(memoryFill(sum, 0, read('arrayBytes')));
    clear();
    sweep(strip, [p.x], [sum], (v, [x], [s]) => add(f, v, s!, v.load(x!)));
    perGroup(strip, [sum], ([total], group, first) => {
      const mu = f.let(f32.demote_f64(f64.div(total!, numbersInGroup(strip))));
      f.emit(f32.store(i32.add(p.mu, i32.shl(group, 2)), mu));
      spread(strip, mean, first, mu);
    });
    clear();
    sweep(strip, [p.x], [sum, mean], (v, [x], [s, mu]) => {
      const d = f.let(f32x4.sub(v.load(x!), v.loadPadded(mu!)));
      add(f, v, s!, f32x4.mul(d, d));
    });
    perGroup(strip, [sum], ([total], group, first) => {
      const eps = f64.promote_f32(f32.load(strip.args, forwardWords.at('eps')));
      const deviation = f64.sqrt(f64.add(f64.div(total!, numbersInGroup(strip)), eps));
      const r = f.let(f32.demote_f64(f64.div(1, deviation)));
      f.emit(f32.store(i32.add(p.r, i32.shl(group, 2)), r));
      spread(strip, scale, first, r);
    });
    const [s, gamma] = [f.let(scale), f.let(p.gamma)];
    alongRow(f, m, channels, [s, gamma], (v) => f.emit(v.storePadded(s, f32x4.mul(v.loadPadded(s), v.load(gamma)))));
    sweep(strip, [p.x, p.y], [mean, scale, p.beta], (v, [x, y], [mu, k, beta]) => {
      const d = f32x4.sub(v.load(x!), v.loadPadded(mu!));
      const value = f.let(f32x4.add(f32x4.mul(d, v.loadPadded(k!)), v.load(beta!)));
      f.emit(v.store(y!, silu ? siluF32x4(f, value) : value));
    });
  });

/** d silu(y)/dy = s·(1 + y·(1 − s)) with s = sigmoid(y) */
const siluSlope = (f: FunctionBuilder, y: V): Expr<'v128'> => {
  const s = sigmoidF32x4(f, y);
  return f32x4.mul(s, f32x4.add(f32x4.mul(y, f32x4.sub(1, s)), 1));
};

/** dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ with ĝ = g·act′(y)·γ; dx holds g·act′(y) between the passes */
const gradKernel = (silu: boolean): KernelSource =>
  stripKernel(silu ? 'groupNormGrad silu' : 'groupNormGrad', gradWords, gradPointers, (strip) => {
    const { f, at: p, array, read } = strip;
    const [mean, scale, sum, product] = [array(0), array(1), array(2), array(3)];
    perGroup(strip, [], (_sums, group, first) => {
      spread(strip, mean, first, f.let(f32.load(i32.add(p.mu, i32.shl(group, 2)))));
      spread(strip, scale, first, f.let(f32.load(i32.add(p.r, i32.shl(group, 2)))));
    });
    f.emit(memoryFill(sum, 0, read('arrayBytes')), memoryFill(product, 0, read('arrayBytes')));
    const xhat = (v: RowVector, x: I32, mu: I32, r: I32): V =>
      f.let(f32x4.mul(f32x4.sub(v.load(x), v.loadPadded(mu)), v.loadPadded(r)));
    sweep(
      strip,
      [p.g, p.x, p.dx],
      [mean, scale, p.gamma, p.beta, sum, product],
      (v, [g, x, dx], [mu, r, gamma, beta, s, b]) => {
        const hat = xhat(v, x!, mu!, r!);
        const slope = f.let(v.load(g!));
        const weight = f.let(v.load(gamma!));
        if (silu) {
          const y = f.let(f32x4.add(f32x4.mul(hat, weight), v.load(beta!)));
          f.set(slope, f32x4.mul(slope, siluSlope(f, y)));
          f.emit(v.store(dx!, slope));
        }
        f.set(slope, f32x4.mul(slope, weight));
        add(f, v, s!, slope);
        add(f, v, b!, f32x4.mul(slope, hat));
      },
    );
    perGroup(strip, [sum, product], ([a, b], _group, first) => {
      const n = f.let(numbersInGroup(strip));
      spread(strip, sum, first, f.let(f32.demote_f64(f64.div(a!, n))));
      spread(strip, product, first, f.let(f32.demote_f64(f64.div(b!, n))));
    });
    sweep(strip, [p.g, p.x, p.dx], [mean, scale, p.gamma, sum, product], (v, [g, x, dx], [mu, r, gamma, s, b]) => {
      const slope = f32x4.mul(v.load(silu ? dx! : g!), v.load(gamma!));
      const hat = xhat(v, x!, mu!, r!);
      const centred = f32x4.sub(slope, v.loadPadded(s!));
      const value = f32x4.sub(centred, f32x4.mul(hat, v.loadPadded(b!)));
      f.emit(v.store(dx!, f32x4.mul(value, v.loadPadded(r!))));
    });
  });

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
/** channels of a strip: whole groups, whole vectors where possible */
export const stripWidth = (pictures: number, channels: number, groups: number): number => {
  const size = channels / groups;
  const step = (size * 4) / gcd(size, 4);
  if (step >= channels) return channels;
  const wanted = Math.max(LEAST, Math.min(MOST, Math.ceil((pictures * channels) / STRIPS)));
  return Math.min(channels, Math.max(1, Math.floor(wanted / step)) * step);
};

const stripWork = (
  kernel: KernelSource,
  layout: Words,
  shape: readonly number[],
  groups: number,
  pointers: Readonly<Record<string, number>>,
  rest: Readonly<Record<string, number>>,
): Work => {
  const [n, h, w, c] = shape as [number, number, number, number];
  if (n * h * w * c === 0) return { commands: [], kernels: [] };
  const size = c / groups;
  const strip = stripWidth(n, c, groups);
  const strips = Math.ceil(c / strip);
  const perPicture = ['x', 'y', 'g', 'dx'];
  const perGroupNames = ['mu', 'r'];
  const names = Object.keys(pointers);
  const strides = (picture: number, group: number, channel: number): Record<string, number> =>
    Object.fromEntries(
      names.map((p) => [p, perPicture.includes(p) ? picture : perGroupNames.includes(p) ? group : channel]),
    );
  const axes: WalkAxis[] = [
    { size: n, strides: strides(h * w * c * 4, groups * 4, 0) },
    { size: strips, strides: strides(strip * 4, (strip / size) * 4, strip * 4) },
  ];
  const args = layout.pack({
    unit: 1,
    items: n * strips,
    pixels: h * w,
    groupSize: size,
    strip,
    lastStrip: c - (strips - 1) * strip,
    rowBytes: c * 4,
    arrayBytes: Math.ceil(strip / 16) * 64,
    ...pointers,
    ...rest,
    ...walkWords('w', axes, names),
  });
  // small pictures stay on one thread
  const chunk = n * h * w * c < 16384 ? { chunk: n * strips } : {};
  return { commands: [{ kernel: kernel.name, args, grid: n * strips, ...chunk }], kernels: [kernel] };
};

const groupNorm: WasmKernel<GroupNormAttrs> = {
  strided: [],
  work: ({ inputs: [x, gamma, beta], outputs: [y, mu, r], attrs }) =>
    stripWork(
      forwardKernel(attrs.silu),
      forwardWords,
      x!.view.shape,
      attrs.groups,
      { x: at(x!), y: y!.address, gamma: at(gamma!), beta: at(beta!), mu: mu!.address, r: r!.address },
      { eps: f32Bits(attrs.eps) },
    ),
};
const groupNormGrad: WasmKernel<GroupNormAttrs> = {
  strided: [],
  work: ({ inputs: [g, x, gamma, beta, mu, r], outputs: [dx], attrs }) =>
    stripWork(
      gradKernel(attrs.silu),
      gradWords,
      x!.view.shape,
      attrs.groups,
      {
        g: at(g!),
        x: at(x!),
        dx: dx!.address,
        gamma: at(gamma!),
        beta: at(beta!),
        mu: at(mu!),
        r: at(r!),
      },
      {},
    ),
};
export const groupNormKernels = { groupNorm, groupNormGrad };
