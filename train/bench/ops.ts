/** The operations of the bench: what each computes, its floating-point operations, and the bytes it must move. */
import {
  add,
  asFloat,
  attention,
  type Backend,
  compile,
  conv,
  convInput,
  dot,
  evaluate,
  groupNorm,
  layerNorm,
  mul,
  pullback,
  sigmoid,
  softmax,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { bytesOf } from '../../core/ir/dtype.ts';
import { listed } from '../../models/io/error.ts';
import { geglu } from '../../nn/index.ts';
import { timed } from './clock.ts';

export type OpFigure = {
  readonly name: string;
  readonly backend: string;
  readonly ms: number;
  readonly gflop: number;
  /** read and written at least */
  readonly bytes: number;
  /** what limits it on this kind of machine */
  readonly bound: 'compute' | 'memory';
};

type Case = {
  readonly shapes: readonly (readonly number[])[];
  readonly run: (...x: Tensor[]) => Tensor | readonly Tensor[];
  /** the last operand is a frozen weight of half floats */
  readonly halves?: true;
  readonly flop?: number;
  readonly bound: 'compute' | 'memory';
};

const same = {
  stride: [1, 1],
  pad: [
    [1, 1],
    [1, 1],
  ],
  groups: 1,
} as const;
const product = (m: number, n: number, k: number): Case => ({
  shapes: [
    [1, m, k],
    [1, k, n],
  ],
  run: (a, b) => dot(a!, b!),
  flop: 2 * m * n * k,
  bound: 'compute',
});
const convolution = (b: number, side: number, c: number): Case => ({
  shapes: [
    [b, side, side, c],
    [3, 3, c, c],
  ],
  run: (x, w) => conv(x!, w!, same),
  flop: 2 * b * side * side * 9 * c * c,
  bound: 'compute',
});
const convolutionGradient = (b: number, side: number, c: number): Case => ({
  ...convolution(b, side, c),
  run: (g, w) => convInput(g!, w!, { ...same, size: [side, side] }),
});
/** The same with a frozen weight of halves as the last operand. */
const withHalves = ({ run, ...c }: Case): Case => ({ ...c, halves: true, run: (x, w) => run(x!, asFloat(w!)) });
/** The same with the gradients by all operands, for a cotangent of ones times the result: nothing can be left out. */
const withGradients = (c: Case): Case => ({
  ...c,
  run: (...x) => {
    const y = c.run(...x) as Tensor;
    return [y, ...pullback([y], [y], x).map((g) => g!)];
  },
  ...(c.flop === undefined ? {} : { flop: 3 * c.flop }),
});

const [HEADS, ROWS, DEPTH] = [8, 784, 40];
const selfAttention: Case = {
  shapes: [
    [1, ROWS, HEADS * DEPTH],
    [1, ROWS, HEADS * DEPTH],
    [1, ROWS, HEADS * DEPTH],
  ],
  run: (q, k, v) => attention(q!, k!, v!, { heads: HEADS }),
  flop: 4 * HEADS * ROWS * ROWS * DEPTH,
  bound: 'compute',
};
const MILLIONS = [4, 1024, 1024] as const;
const chain: Case = {
  shapes: [MILLIONS, MILLIONS, MILLIONS],
  run: (x, y, z) => add(mul(mul(x!, sigmoid(x!)), y!), z!),
  bound: 'memory',
};
const picture = [8, 28, 28, 320] as const;
const groups: Case = {
  shapes: [picture, [320], [320]],
  run: (x, w, b) => groupNorm(x!, w!, b!, { groups: 32, eps: 1e-5, silu: false }),
  bound: 'memory',
};
const rows: Case = {
  shapes: [[6272, 320], [320], [320]],
  run: (x, w, b) => layerNorm(x!, w!, b!, 1e-5),
  bound: 'memory',
};

export const CASES: Readonly<Record<string, Case>> = {
  'dot 512×512×512': product(512, 512, 512),
  'dot 1024×1024×1024': product(1024, 1024, 1024),
  'dot 784×320×320': product(784, 320, 320),
  'dot 1232×320×768': product(1232, 320, 768),
  'dot 784×320×2880': product(784, 320, 2880),
  'conv 3×3 64→64 28² b8': convolution(8, 28, 64),
  'conv 3×3 320→320 28² b1': convolution(1, 28, 320),
  'conv input gradient 64→64': convolutionGradient(8, 28, 64),
  'conv input gradient 320→320': convolutionGradient(1, 28, 320),
  'dot 8×1280×1280, halves': withHalves(product(8, 1280, 1280)),
  'dot 392×1280×1280, halves': withHalves(product(392, 1280, 1280)),
  'dot 392×10240×1280, halves': withHalves(product(392, 10240, 1280)),
  'conv 3×3 1280→1280 4² b8, halves': withHalves(convolution(8, 4, 1280)),
  'conv 3×3 1280→1280 7² b8, halves': withHalves(convolution(8, 7, 1280)),
  'conv 3×3 1280→1280 14² b8, halves': withHalves(convolution(8, 14, 1280)),
  'conv input gradient 1280→1280 4², halves': withHalves(convolutionGradient(8, 4, 1280)),
  'conv input gradient 1280→1280 7², halves': withHalves(convolutionGradient(8, 7, 1280)),
  'attention 8×784×40': selfAttention,
  'attention 8×784×40 with gradients': withGradients(selfAttention),
  'silu(x)·y+z, 4 M': chain,
  'silu(x)·y+z, 4 M with gradients': withGradients(chain),
  'groupNorm 8×28²×320': groups,
  'groupNorm with gradients': withGradients(groups),
  'layerNorm 6272×320': rows,
  'layerNorm with gradients': withGradients(rows),
  'softmax 6272×784': { shapes: [[6272, 784]], run: (x) => softmax(x!), bound: 'memory' },
  'geglu 6272×2560': { shapes: [[6272, 2560]], run: (x) => geglu(x!), bound: 'memory' },
};

const sizeOf = (shape: readonly number[]) => shape.reduce((p, n) => p * n, 1);
const values = (shape: readonly number[]): Tensor =>
  tensor(
    Float32Array.from({ length: sizeOf(shape) }, (_, i) => ((i * 7919) % 1000) / 1000 - 0.5),
    shape,
  );

/** halves around one quarter, of both signs */
const halves = (shape: readonly number[]): Tensor =>
  tensor(
    new Uint16Array(sizeOf(shape)).map((_, i) => 0x3000 + ((i * 7919) % 1024) + (i % 2) * 0x8000),
    shape,
    'f16',
  );

/** Times every case whose name contains `only`: the sum of its kernels by the backend's own clock. */
export async function benchOps(backend: Backend, only: string, ms: number): Promise<OpFigure[]> {
  const names = Object.keys(CASES);
  if (!names.some((name) => name.includes(only)))
    throw new RangeError(`--only ${only}: no operation has this in its name; there are ${listed(names, 30)}`);
  const figures: OpFigure[] = [];
  for (const [name, { shapes, run, flop, bound, halves: half }] of Object.entries(CASES)) {
    if (!name.includes(only)) continue;
    // the last results are given back at once: like an allocator's, their memory is warm, and none waits for a collection
    const program = compile((x: readonly Tensor[], _last: readonly Tensor[]) => run(...x), {
      backend,
      donate: [1],
      name,
    });
    const operands = shapes.map((s, i) => (half && i === shapes.length - 1 ? halves : values)(s));
    const inputs = evaluate(operands, backend);
    let last: readonly Tensor[] = [];
    let bytes = 0;
    const once = async (): Promise<number> => {
      const start = performance.now();
      last = [await program.profile(inputs, last)].flat();
      const wall = performance.now() - start;
      const { kernels } = program.inspect(inputs, last);
      bytes = [...operands, ...last].reduce((n, t) => n + bytesOf(t.dtype, sizeOf(t.shape)), 0);
      // a backend that cannot time its kernels gives zeros
      return kernels.reduce((sum, k) => sum + (k.ms ?? 0), 0) || wall;
    };
    const { min } = await timed(once, { ms, warm: 3 });
    figures.push({ name, backend: backend.name, ms: min, gflop: (flop ?? 0) / 1e9, bytes, bound });
    program.trim();
  }
  return figures;
}
