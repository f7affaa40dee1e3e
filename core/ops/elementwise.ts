/**
 * Elementwise primitives: one row each. A row is what sets an op apart: formula, scalar function, derivative, domain for
 * tests; `elementwise` below makes the record of it, with the shape rule, batching rule and reference loop that all rows
 * share. Shapes must be equal here; the public functions (math.ts) broadcast. A backend prints a row by its name
 * (backends/wasm/cluster/math.ts, backends/webgpu/math.ts, backends/gpujs/printKernel.ts): a missing printer is a type error there.
 *
 * This file and math.ts import each other, because derivatives are written in the functions a person calls.
 */
import type { DType } from '../ir/dtype.ts';
import { shapeError } from '../ir/errors.ts';
import { flatten } from '../ir/flatten.ts';
import { checkDtypes, type Kind } from '../ir/rules.ts';
import { type Attrs, bind, type Primitive, type Tensor, type Vjp } from '../ir/tensor.ts';
import { mapAll } from './batching.ts';
import { full } from './fill.ts';
import { cos, div, equal, exp, less, mul, neg, select, sin, sub } from './math.ts';

/** a function of up to three numbers, as it is written and as it is called */
type Scalar = (x: number, y: number, z: number) => number;
type Applied = (...x: number[]) => number;
type Derivative = (g: Tensor, x: readonly Tensor[], y: Tensor) => readonly (Tensor | undefined)[];

interface Row {
  readonly doc: string;
  readonly formula: string;
  readonly js: Scalar;
  /** the same on integers, where it differs; results are taken modulo 2³² */
  readonly integer?: Scalar;
  /** what the values may be; default numbers */
  readonly takes?: Kind;
  /** (g, inputs, y) → cotangents of the inputs: g·∂y/∂x, from x or from y, whichever is cheaper; or why there are none */
  readonly vjp: Derivative | 'nondifferentiable';
  /** in simple instructions; default 1 */
  readonly cost?: number;
  /** for each operand the constant that leaves the other as it is, to the bit; undefined where there is none */
  readonly neutral?: readonly (number | undefined)[];
  /** result dtype; default: that of the first operand */
  readonly out?: 'bool';
  /** how many leading operands are conditions, whose dtype may differ from that of the values; default 0 */
  readonly conditions?: number;
  /** dtypes of the operands in tests; default all f32 */
  readonly operands?: readonly DType[];
  /** the domain in tests */
  readonly range?: readonly [number, number];
}

function elementwise<N extends string>(name: N, arity: number, row: Row): Primitive<Attrs> & { readonly name: N } {
  const [js, integer] = [row.js as Applied, row.integer as Applied | undefined];
  return {
    kind: 'primitive',
    name,
    doc: row.doc,
    formula: row.formula,
    form: {
      kind: 'elementwise',
      js,
      ...(integer ? { integer } : {}),
      cost: row.cost ?? 1,
      ...(row.neutral ? { neutral: row.neutral } : {}),
    },
    shape(inputs) {
      const [a] = inputs;
      if (inputs.length !== arity) throw shapeError(name, inputs, `takes ${arity} operands`);
      for (const x of inputs)
        if (x.shape.length !== a!.shape.length || x.shape.some((n, i) => n !== a!.shape[i]))
          throw shapeError(name, inputs, 'operands must have equal shapes');
      const conditions = row.conditions ?? 0;
      if (inputs.slice(0, conditions).some((x) => x.dtype !== 'bool'))
        throw shapeError(name, inputs, 'the condition must be bool');
      const values = inputs.slice(conditions);
      checkDtypes(name, inputs, row.takes ?? 'number', values);
      return { shape: a!.shape, dtype: row.out ?? values[0]!.dtype };
    },
    vjp: row.vjp === 'nondifferentiable' ? 'nondifferentiable' : wrap(row.vjp),
    batch(size, inputs, mapped) {
      return [bind(table[name as unknown as ElementwiseName], mapAll(size, inputs, mapped), {})];
    },
    cpu(inputs, _attrs, [y]) {
      const out = y!.data;
      const flat = inputs.map(flatten);
      const last = flat.at(-1);
      const f = integer && (last instanceof Int32Array || last instanceof Uint32Array) ? integer : js;
      for (let i = 0; i < out.length; i++) {
        let v: number;
        if (arity === 1) v = f(flat[0]![i]!);
        else if (arity === 2) v = f(flat[0]![i]!, flat[1]![i]!);
        else v = f(flat[0]![i]!, flat[1]![i]!, flat[2]![i]!);
        out[i] = v;
      }
    },
    flops: (inputs) => inputs[0]!.shape.reduce((a, b) => a * b, 1),
    sample(pick) {
      const shape = Array.from({ length: pick(0, 3) }, () => pick(1, 4));
      const operand = (i: number) => {
        const dtype = row.operands?.[i] ?? 'f32';
        return {
          shape,
          dtype,
          ...(dtype === 'bool' ? { range: [0, 2] as const } : row.range ? { range: row.range } : {}),
        };
      };
      return { operands: Array.from({ length: arity }, (_, i) => operand(i)), attrs: {} };
    },
  };
}

const wrap =
  (f: Derivative): Vjp<Attrs> =>
  ([g], x, _attrs, [y]) =>
    f(g!, x, y!);

type Unary =
  | 'neg'
  | 'exp'
  | 'log'
  | 'sqrt'
  | 'rsqrt'
  | 'recip'
  | 'sin'
  | 'cos'
  | 'tanh'
  | 'erf'
  | 'sigmoid'
  | 'floor'
  | 'not'
  | 'isFinite';
type Binary = 'add' | 'sub' | 'mul' | 'div' | 'maximum' | 'minimum' | 'less' | 'equal';
export type ElementwiseName = Unary | Binary | 'select';

const like = (x: Tensor, value: number): Tensor => full(x.shape, value, x.dtype);
/** 1 where a wins, ½ where they tie, 0 where b wins: the symmetric sub-gradient */
const winner = (a: Tensor, b: Tensor): Tensor => select(equal(a, b), 0.5, select(less(b, a), like(a, 1), 0));

/** functions of floats only: of some 16 simple instructions, of some 4 */
const dear = { takes: 'float', cost: 16 } as const;
const root = { takes: 'float', cost: 4 } as const;

const rows1: Readonly<Record<Unary, Row>> = {
  neg: { doc: 'negation; of integers modulo 2³²', formula: 'y = −x', js: (x) => -x, vjp: (g) => [neg(g)] },
  exp: { ...dear, doc: 'exponential function', formula: 'y = eˣ', js: Math.exp, vjp: (g, _x, y) => [mul(g, y)] },
  log: {
    ...dear,
    doc: 'natural logarithm; −∞ at 0, NaN below',
    formula: 'y = ln x',
    js: Math.log,
    vjp: (g, [x]) => [div(g, x!)],
    range: [0.2, 3],
  },
  sqrt: {
    ...root,
    doc: 'square root',
    formula: 'y = √x',
    js: Math.sqrt,
    vjp: (g, _x, y) => [div(mul(g, 0.5), y)],
    range: [0.2, 3],
  },
  rsqrt: {
    ...root,
    doc: 'reciprocal square root',
    formula: 'y = 1/√x',
    js: (x) => 1 / Math.sqrt(x),
    vjp: (g, [x], y) => [mul(g, div(mul(-0.5, y), x!))],
    range: [0.2, 3],
  },
  recip: {
    ...root,
    doc: 'reciprocal',
    formula: 'y = 1/x',
    js: (x) => 1 / x,
    vjp: (g, _x, y) => [neg(mul(g, mul(y, y)))],
    range: [0.3, 3],
  },
  sin: { ...dear, doc: 'sine of radians', formula: 'y = sin x', js: Math.sin, vjp: (g, [x]) => [mul(g, cos(x!))] },
  cos: {
    ...dear,
    doc: 'cosine of radians',
    formula: 'y = cos x',
    js: Math.cos,
    vjp: (g, [x]) => [neg(mul(g, sin(x!)))],
  },
  tanh: {
    ...dear,
    doc: 'hyperbolic tangent',
    formula: 'y = tanh x',
    js: Math.tanh,
    vjp: (g, _x, y) => [mul(g, sub(1, mul(y, y)))],
  },
  erf: {
    ...dear,
    doc: 'error function',
    formula: 'y = 2/√π ∫₀ˣ e^(−t²) dt',
    js: erfJs,
    // dy/dx = 2/√π·e^(−x²)
    vjp: (g, [x]) => [mul(g, mul(2 / Math.sqrt(Math.PI), exp(neg(mul(x!, x!)))))],
  },
  sigmoid: {
    ...dear,
    doc: 'logistic function, (0, 1)',
    formula: 'y = 1/(1 + e^(−x))',
    js: (x) => 1 / (1 + Math.exp(-x)),
    // uses the output, so x need not be kept
    vjp: (g, _x, y) => [mul(g, mul(y, sub(1, y)))],
  },
  floor: {
    doc: 'largest integer not above x; integers stay as they are',
    formula: 'y = ⌊x⌋',
    js: Math.floor,
    vjp: 'nondifferentiable',
  },
  not: {
    doc: 'logical negation',
    formula: 'y = ¬x',
    takes: 'bool',
    js: (x) => (x ? 0 : 1),
    vjp: 'nondifferentiable',
    operands: ['bool'],
  },
  isFinite: {
    doc: 'neither NaN nor infinite (tested on the exponent bits: GPUs may optimise x ≠ x away)',
    formula: 'y = |x| < ∞',
    takes: 'any',
    js: (x) => (Number.isFinite(x) ? 1 : 0),
    vjp: 'nondifferentiable',
    out: 'bool',
  },
};

const rows2: Readonly<Record<Binary, Row>> = {
  add: {
    doc: 'sum; of integers modulo 2³²',
    formula: 'y = a + b',
    js: (a, b) => a + b,
    vjp: (g) => [g, g],
    // 0 would make 0 of −0
    neutral: [-0, -0],
  },
  sub: {
    doc: 'difference; of integers modulo 2³²',
    formula: 'y = a − b',
    js: (a, b) => a - b,
    vjp: (g) => [g, neg(g)],
    neutral: [undefined, 0],
  },
  mul: {
    doc: 'product; of integers modulo 2³², of bools “and”',
    formula: 'y = a·b',
    takes: 'any',
    js: (a, b) => a * b,
    integer: (a, b) => Math.imul(a, b),
    vjp: (g, [a, b]) => [mul(g, b!), mul(g, a!)],
    neutral: [1, 1],
  },
  div: {
    cost: 4,
    doc: 'quotient; of integers towards zero, where n/0 = 0 and −2³¹/−1 = −2³¹',
    formula: 'y = a/b',
    js: (a, b) => a / b,
    integer: (a, b) => (b === 0 ? 0 : Math.trunc(a / b)),
    vjp: (g, [, b], y) => [div(g, b!), neg(mul(div(g, b!), y))],
    neutral: [undefined, 1],
    range: [0.3, 3],
  },
  maximum: {
    doc: 'larger of two; the gradient is split at ties; of bools “or”',
    takes: 'any',
    formula: 'y = max(a, b)',
    js: (a, b) => Math.max(a, b),
    vjp: (g, [a, b]) => [mul(g, winner(a!, b!)), mul(g, winner(b!, a!))],
  },
  minimum: {
    doc: 'smaller of two; the gradient is split at ties; of bools “and”',
    takes: 'any',
    formula: 'y = min(a, b)',
    js: (a, b) => Math.min(a, b),
    vjp: (g, [a, b]) => [mul(g, winner(b!, a!)), mul(g, winner(a!, b!))],
  },
  less: {
    doc: 'comparison',
    formula: 'y = a < b',
    js: (a, b) => (a < b ? 1 : 0),
    vjp: 'nondifferentiable',
    out: 'bool',
  },
  equal: {
    doc: 'comparison',
    formula: 'y = a = b',
    takes: 'any',
    js: (a, b) => (a === b ? 1 : 0),
    vjp: 'nondifferentiable',
    out: 'bool',
  },
};

const rows3: Readonly<Record<'select', Row>> = {
  select: {
    doc: 'a where the condition holds, b elsewhere',
    formula: 'y = c ? a : b',
    takes: 'any',
    js: (c, a, b) => (c ? a : b),
    vjp: (g, [c]) => [undefined, select(c!, g, 0), select(c!, 0, g)],
    conditions: 1,
    operands: ['bool', 'f32', 'f32'],
  },
};

type Table = { readonly [N in ElementwiseName]: Primitive<Attrs> & { readonly name: N } };

const build = (rows: Readonly<Record<string, Row>>, arity: number) =>
  Object.entries(rows).map(([name, row]) => [name, elementwise(name, arity, row)] as const);
/** every elementwise primitive by name */
export const table = Object.fromEntries([
  ...build(rows1, 1),
  ...build(rows2, 2),
  ...build(rows3, 3),
]) as unknown as Table;

/** erf to double precision: Maclaurin series for |x| < 2.5, continued fraction of erfc beyond (W. J. Lentz). */
function erfJs(x: number): number {
  const a = Math.abs(x);
  if (a < 2.5) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 80; n++) {
      term *= -(x * x) / n;
      const add = term / (2 * n + 1);
      sum += add;
      if (Math.abs(add) < 1e-17 * Math.abs(sum)) break;
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  if (a > 6) return Math.sign(x);
  let f = 0;
  for (let n = 60; n > 0; n--) f = n / 2 / (a + f);
  const erfc = Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + f));
  return Math.sign(x) * (1 - erfc);
}
