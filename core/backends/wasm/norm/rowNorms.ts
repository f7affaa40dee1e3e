/** norm of rows (layerNorm) and its derivative, softmax: a row at a time, read from L1 after the first pass. */

import type { NormAttrs, NormGradAttrs } from '../../../fused/norm.ts';
import type { Attrs } from '../../../ir/tensor.ts';
import { sizeOf } from '../../../ir/view.ts';
import { type Expr, f32x4, i32, type Local, memoryFill, v128 } from '../assembler/assemble.ts';
import { expBoundedF32x4 } from '../assembler/vectorMath.ts';
import {
  type Kernel,
  type KernelCode,
  kernel,
  nothing,
  type Placed,
  type Plan,
  type Shapes,
  type WasmKernel,
  type Word,
  words,
} from '../kernel.ts';
import { accumulators, alongRow, combineAll, maxRow, reciprocal, sumRow, ZERO } from '../loops/rows.ts';
import { cutUnits, readAll, unitNames, walkNames, walkUnits, walkWords } from '../loops/walk.ts';
import { f32Bits } from '../machine/machine.ts';

type I32 = Local<'i32'>;
type Code = Expr<'v128'>;
const UNROLL = 4;

interface RowKernel {
  readonly kernel: Kernel;
  readonly pointers: readonly string[];
}
/** what the body of a row kernel works with */
interface RowBody extends KernelCode<string> {
  /** pointers at the current row */
  readonly at: Readonly<Record<string, I32>>;
  readonly width: I32;
}

/** A kernel over rows of `width` numbers: `pointers` move by a row, `others` are plain words. */
const rowKernel = (
  name: string,
  pointers: readonly string[],
  others: readonly string[],
  body: (row: RowBody) => void,
): RowKernel => {
  const layout = words([...unitNames, 'width', ...pointers, ...others, ...walkNames('w', 1, pointers)]);
  const made = kernel(name, layout, (code) => {
    const moving = readAll(code, pointers);
    const width = code.f.let(code.read('width'));
    walkUnits(code, 'w', 1, moving, () => body({ ...code, at: moving, width }));
  });
  return { kernel: made, pointers };
};

/** One command over all rows. `strides`: bytes from row to row of each pointer. */
const rowPlan = (
  { kernel, pointers }: RowKernel,
  rows: number,
  width: number,
  price: number,
  values: Readonly<Record<string, Word>>,
  strides: Readonly<Record<string, number>>,
): Plan => {
  if (rows * width === 0) return nothing;
  const { grid, ...unit } = cutUnits(rows, price * Math.ceil(width / 4) + 60);
  const walk = walkWords('w', [{ size: rows, strides }], pointers);
  return { bytes: 0, commands: [kernel.command({ ...unit, width, ...values, ...walk }, grid)] };
};

/** a kernel of its own for each set of results that are wanted */
const variants = (make: (wanted: readonly string[]) => RowKernel) => {
  const made = new Map<string, RowKernel>();
  return (wanted: readonly string[]): RowKernel => {
    const key = wanted.join(' ');
    const known = made.get(key) ?? make(wanted);
    made.set(key, known);
    return known;
  };
};

/** y = (x − μ)/√(var + ε)·γ + β; two passes for μ and var, so that a large mean costs no digits */
const forwardKernel = variants((wanted) =>
  rowKernel(`row norm: ${wanted}`, ['x', ...wanted], ['gamma', 'beta', 'eps'], (row) => {
    const { f, m, at: p, width } = row;
    const perNumber = f.let(reciprocal(width));
    const x = f.let(p.x!);
    const sum = sumRow(f, m, UNROLL, width, [x], (v) => v.load(x));
    const mu = f.let(f32x4.mul(sum, perNumber));
    f.set(x, p.x!);
    const squares = sumRow(f, m, UNROLL, width, [x], (v) => {
      const d = f.let(f32x4.sub(v.load(x), mu));
      return v.mask(f32x4.mul(d, d));
    });
    const variance = f32x4.mul(squares, perNumber);
    const r = f.let(f32x4.div(1, f32x4.sqrt(f32x4.add(variance, row.splat('eps')))));
    if (p.mu) f.emit(v128.store32_lane(p.mu, mu, 0));
    if (p.r) f.emit(v128.store32_lane(p.r, r, 0));
    if (!p.y) return;
    f.set(x, p.x!);
    const y = f.let(p.y);
    const [gamma, beta] = [f.let(row.read('gamma')), f.let(row.read('beta'))];
    alongRow(f, m, 2, width, [x, y, gamma, beta], (v) => {
      const xhat = f32x4.mul(f32x4.sub(v.load(x), mu), r);
      f.emit(v.store(y, f32x4.add(f32x4.mul(xhat, v.load(gamma)), v.load(beta))));
    });
  }),
);

/**
 * dx = (ĝ − mean ĝ − x̂·mean(ĝ·x̂))/σ with ĝ = g·γ. With sums for γ or β a unit is a block of rows, and the sums
 * dγ = Σ g·x̂ and dβ = Σ g grow in the results, which stay in L1.
 */
const gradKernel = variants((wanted) => {
  const sums = wanted.filter((name) => name !== 'dx');
  const moving = ['g', 'x', 'mu', 'r', ...wanted];
  const others = sums.length > 0 ? ['gamma', 'rows'] : ['gamma'];
  return rowKernel(`row norm gradient: ${wanted}`, moving, others, (row) => {
    if (sums.length === 0) return gradOfRow(row);
    const { f, at: p, width } = row;
    const bytes = f.let(i32.shl(width, 2));
    f.emit(...sums.map((name) => memoryFill(p[name]!, i32.const(0), bytes)));
    const of = moving.filter((name) => !sums.includes(name));
    const at = { ...p, ...Object.fromEntries(of.map((name) => [name, f.let(p[name]!)])) };
    const left = f.let(row.read('rows'));
    f.while(left, () => {
      gradOfRow({ ...row, at });
      for (const name of of) f.inc(at[name]!, ['mu', 'r'].includes(name) ? 4 : bytes);
      f.inc(left, -1);
    });
  });
});
const gradOfRow = ({ f, m, at: p, width, read }: RowBody): void => {
  const perNumber = f.let(reciprocal(width));
  const mu = f.let(v128.load32_splat(p.mu!));
  const r = f.let(v128.load32_splat(p.r!));
  const [sums, products] = [accumulators(f, 2, ZERO), accumulators(f, 2, ZERO)];
  const [g, x, gamma] = f.locals('i32');
  const restart = (): void => {
    f.set(g, p.g!);
    f.set(x, p.x!);
    f.set(gamma, read('gamma'));
  };
  restart();
  const [dgamma, dbeta] = [p.dgamma && f.let(p.dgamma), p.dbeta && f.let(p.dbeta)];
  const totals = [dgamma, dbeta].filter((t) => t !== undefined);
  const xhat = (value: Code): Local<'v128'> => f.let(f32x4.mul(f32x4.sub(value, mu), r));
  alongRow(f, m, 2, width, [g, x, gamma, ...totals], (v) => {
    // beyond the row g is 0, and with it all terms
    const slope = f.let(v.load(g));
    const normal = xhat(v.load(x));
    if (p.dx) {
      const gh = f.let(f32x4.mul(slope, v.load(gamma)));
      f.set(sums[v.u]!, f32x4.add(sums[v.u]!, gh));
      f.set(products[v.u]!, f32x4.add(products[v.u]!, f32x4.mul(gh, normal)));
    }
    for (const t of totals) f.emit(v.store(t, f32x4.add(v.load(t), t === dgamma ? f32x4.mul(slope, normal) : slope)));
  });
  if (!p.dx) return;
  const a = f.let(f32x4.mul(combineAll(f, sums, f32x4.add), perNumber));
  const b = f.let(f32x4.mul(combineAll(f, products, f32x4.add), perNumber));
  restart();
  const dx = f.let(p.dx);
  alongRow(f, m, 2, width, [g, x, gamma, dx], (v) => {
    const gh = f32x4.mul(v.load(g), v.load(gamma));
    f.emit(v.store(dx, f32x4.mul(f32x4.sub(f32x4.sub(gh, a), f32x4.mul(xhat(v.load(x)), b)), r)));
  });
};

/** y = e^(x − max x) / Σ e^(x − max x) */
const softmaxKernel = rowKernel('softmax', ['x', 'y'], [], ({ f, m, at: p, width }) => {
  // NaN is passed over here; the exponentials below bring it back
  const top = maxRow(f, m, width, p.x!);
  const [x, y] = [f.let(p.x!), f.let(p.y!)];
  const sum = sumRow(f, m, 2, width, [x, y], (v) => {
    const e = expBoundedF32x4(f, f32x4.sub(v.load(x), top));
    f.emit(v.store(y, e));
    return v.mask(e);
  });
  const scale = f.let(f32x4.div(1, sum));
  f.set(y, p.y!);
  alongRow(f, m, 2, width, [y], (v) => f.emit(v.store(y, f32x4.mul(v.load(y), scale))));
});

const rowsOf = ({ view: { shape } }: Placed): [rows: number, width: number] => [
  sizeOf(shape.slice(0, -1)),
  shape.at(-1) ?? 1,
];
/** addresses of the results that are wanted, by name */
const wantedOf = (outputs: Shapes['outputs'], names: readonly string[]): Record<string, Word> =>
  Object.fromEntries(names.flatMap((name, i) => (outputs[i] ? [[name, outputs[i].at]] : [])));

/** `norm` of rows */
export const rowNorm = ({ inputs: [x, gamma, beta], outputs, attrs }: Shapes<NormAttrs>): Plan => {
  const [rows, width] = rowsOf(x!);
  const results = wantedOf(outputs, ['y', 'mu', 'r']);
  return rowPlan(
    forwardKernel(Object.keys(results)),
    rows,
    width,
    8,
    { x: x!.at, gamma: gamma!.at, beta: beta!.at, ...results, eps: f32Bits(attrs.eps) },
    { x: width * 4, y: width * 4, mu: 4, r: 4 },
  );
};
/** `normGrad` of rows */
export const rowNormGrad = ({ inputs, outputs, attrs: { blocks } }: Shapes<NormGradAttrs>): Plan => {
  const [g, x, gamma, mu, r] = inputs;
  const [all, width] = rowsOf(x!);
  const results = wantedOf(outputs, ['dx', 'dgamma', 'dbeta']);
  const gradient = gradKernel(Object.keys(results));
  const values = { g: g!.at, x: x!.at, gamma: gamma!.at, mu: mu!.at, r: r!.at, ...results };
  if (!outputs[1] && !outputs[2])
    return rowPlan(gradient, all, width, 14, values, { g: width * 4, x: width * 4, dx: width * 4, mu: 4, r: 4 });
  const rows = all / blocks;
  const block = rows * width * 4;
  return rowPlan(
    gradient,
    blocks,
    width,
    18 * rows,
    { ...values, rows },
    { g: block, x: block, dx: block, mu: rows * 4, r: rows * 4, dgamma: width * 4, dbeta: width * 4 },
  );
};
export const softmax: WasmKernel<Attrs> = {
  strided: [],
  plan: ({ inputs: [x], outputs: [y] }) => {
    const [rows, width] = rowsOf(x!);
    return rowPlan(softmaxKernel, rows, width, 30, { x: x!.at, y: y!.at }, { x: width * 4, y: width * 4 });
  },
};
