/**
 * Clusters and dot as gpu.js kernels: JavaScript source that gpu.js translates for its own back ends. gpu.js knows f32
 * arrays, up to three output axes and plain loops; what does not fit (integers, bit tests) is answered with a reason.
 */
import { type Axis, collapse } from '../../compile/axes.ts';
import type { Cluster, ScalarStep } from '../../compile/scalar.ts';
import type { View } from '../../ir/view.ts';
import type { ElementwiseName } from '../../ops/elementwise.ts';

export interface GpujsKernel {
  readonly source: string;
  /** [x, y, z], x fastest */
  readonly output: readonly [number, number, number];
  /** numbers given as arguments after the arrays: gpu.js has no literal for infinities and −0 */
  readonly constants: readonly number[];
}
/** Why gpu.js cannot express something. */
export interface Refusal {
  readonly refused: string;
}

/** Functions of our own that kernels may call: WGSL has no erf, and its sine may be 2^-11 off (see webgpu/math.ts). */
export const functions = {
  quadrant: `function quadrant(x, shift) {
  const q = Math.floor(x * 0.636619772 + 0.5);
  const r = ((x - q * 1.5703125) - q * 0.0004837512969970703) - q * 0.00000007549789954891882;
  const z = r * r;
  const s = ((-0.00019515295891 * z + 0.0083321608736) * z - 0.16666654611) * z * r + r;
  const c = ((0.00002443315711809948 * z - 0.001388731625493765) * z + 0.04166664568298827) * z * z - 0.5 * z + 1.0;
  const k = q + shift - 4.0 * Math.floor((q + shift) * 0.25);
  let y = s;
  if (k > 0.5) { y = c; }
  if (k > 1.5) { y = -s; }
  if (k > 2.5) { y = -c; }
  return y;
}`,
  erf: `function erf(x) {
  const t = Math.abs(x);
  const s = x * x;
  let y = 0.0;
  if (t > 0.921875) {
    const c = Math.min(t, 4.0);
    let p = (-0.0000172853470 * c + 0.000383197126) * c * c + (-0.00388396438 * c + 0.0242546219);
    p = ((p * c - 0.106777877) * c - 0.634846687) * c - 0.128717512;
    y = 1.0 - Math.exp(p * c - c);
    if (x < 0.0) { y = -y; }
  } else {
    y = (((((-0.000596761703 * s + 0.00499119423) * s - 0.0267681349) * s + 0.112819925) * s - 0.376125336) * s + 0.128379166) * x + x;
  }
  return y;
}`,
} as const;

type Print = (...x: string[]) => string;
/** Every elementwise function gpu.js can say; `undefined` where it cannot. Bools are 0 and 1. */
const rows: Readonly<Record<ElementwiseName, Print | undefined>> = {
  neg: (x) => `(-${x})`,
  exp: (x) => `Math.exp(${x})`,
  log: (x) => `Math.log(${x})`,
  sqrt: (x) => `Math.sqrt(${x})`,
  rsqrt: (x) => `(1.0 / Math.sqrt(${x}))`,
  recip: (x) => `(1.0 / ${x})`,
  sin: (x) => `quadrant(${x}, 0.0)`,
  cos: (x) => `quadrant(${x}, 1.0)`,
  tanh: (x) => `Math.tanh(${x})`,
  erf: (x) => `erf(${x})`,
  sigmoid: (x) => `(1.0 / (1.0 + Math.exp(-${x})))`,
  floor: (x) => `Math.floor(${x})`,
  not: (x) => `(1.0 - ${x})`,
  isFinite: undefined,
  add: (a, b) => `(${a} + ${b})`,
  sub: (a, b) => `(${a} - ${b})`,
  mul: (a, b) => `(${a} * ${b})`,
  div: (a, b) => `(${a} / ${b})`,
  maximum: (a, b) => `Math.max(${a}, ${b})`,
  minimum: (a, b) => `Math.min(${a}, ${b})`,
  less: (a, b) => `(${a} < ${b} ? 1.0 : 0.0)`,
  equal: (a, b) => `(${a} == ${b} ? 1.0 : 0.0)`,
  select: (c, a, b) => `(${c} > 0.5 ? ${a} : ${b})`,
};

const representable = (dtype: string): boolean => dtype === 'f32' || dtype === 'bool';

const callText = (step: Extract<ScalarStep, { kind: 'call' }>, value: (s: number) => string): string | undefined => {
  const args = step.args.map(value);
  if (step.converts) return step.dtype === 'bool' ? `(${args[0]} < 0.0 || ${args[0]} > 0.0 ? 1.0 : 0.0)` : args[0];
  return rows[step.fn as ElementwiseName]?.(...args);
};

/** `const c… = …` of all axes from the three thread indices: the last two axes are x and y, the others share z. */
const coordinates = (axes: readonly { readonly axis: number; readonly size: number }[]) => {
  const [x, y, ...rest] = [...axes].reverse();
  const lines: string[] = [];
  if (x) lines.push(`const c${x.axis} = this.thread.x;`);
  if (y) lines.push(`const c${y.axis} = this.thread.y;`);
  let left = 'this.thread.z';
  for (const [i, a] of rest.entries()) {
    if (i === rest.length - 1) lines.push(`const c${a.axis} = ${left};`);
    else {
      // half a step keeps the quotient clear of the integers, whatever the division rounds to
      lines.push(
        `const q${i} = Math.floor((${left} + 0.5) / ${a.size});`,
        `const c${a.axis} = ${left} - q${i} * ${a.size};`,
      );
      left = `q${i}`;
    }
  }
  const output: readonly [number, number, number] = [x?.size ?? 1, y?.size ?? 1, rest.reduce((n, a) => n * a.size, 1)];
  return { lines, output };
};

const indexText = (offset: number, terms: readonly (readonly [string, number])[]): string =>
  [String(offset), ...terms.filter(([, s]) => s !== 0).map(([c, s]) => `${c} * ${s}`)].join(' + ');

/** The source of a cluster, or why there is none. */
export const printCluster = (cluster: Cluster): GpujsKernel | Refusal => {
  const strange = [...cluster.steps, ...cluster.inputs].find((s) => !representable(s.dtype));
  if (strange) return { refused: `${strange.dtype} values` };
  if (cluster.outputs.length !== 1) return { refused: 'several outputs' };
  const axes = collapse(cluster);
  const place = (reduced: boolean) =>
    axes.flatMap((a: Axis, axis) => (a.reduced === reduced ? [{ axis, size: a.size }] : []));
  const { lines, output } = coordinates(place(false));
  const constants: number[] = [];
  const constant = (v: number): string =>
    Number.isFinite(v) && !Object.is(v, -0) ? `${v < 0 ? `(${v})` : v}` : `k${constants.push(v) - 1}`;
  const body: string[] = [];
  const value = (s: number) => `t${s}`;
  for (const [s, step] of cluster.steps.entries()) {
    let text: string | undefined;
    if (step.kind === 'load') {
      const { offset } = cluster.inputs[step.input]!;
      text = `x${step.input}[${indexText(
        offset,
        axes.map((a, i) => [`c${i}`, a.strides[step.input]!]),
      )}]`;
    } else if (step.kind === 'const') text = constant(step.value);
    else if (step.kind === 'iota') {
      const axis = axes.findIndex((a) => a.iota === step.axis);
      text = axis < 0 ? '0.0' : `(c${axis} + 0.0)`;
    } else text = callText(step, value);
    if (text === undefined) return { refused: step.kind === 'call' ? step.fn : step.kind };
    body.push(`const ${value(s)} = ${text};`);
  }
  const result = value(cluster.outputs[0]!);
  const reduced = place(true);
  const { reduce } = cluster;
  const loops = reduced.map(({ axis, size }) => `for (let c${axis} = 0; c${axis} < ${size}; c${axis}++) {`);
  const statements = reduce
    ? [
        `let total = ${reduce.op === 'sum' ? '0.0' : constant(Number.NEGATIVE_INFINITY)};`,
        ...loops,
        ...body,
        reduce.op === 'sum' ? `total += ${result};` : `total = Math.max(total, ${result});`,
        ...loops.map(() => '}'),
        'return total;',
      ]
    : [...body, `return ${result};`];
  const names = [...cluster.inputs.map((_, i) => `x${i}`), ...constants.map((_, i) => `k${i}`)];
  return { source: `function(${names.join(', ')}) {\n${[...lines, ...statements].join('\n')}\n}`, output, constants };
};

/** y[g,m,n] = Σ_k a·b on strided operands. */
export const printDot = (a: View, b: View): GpujsKernel => {
  const [g, m, k] = a.shape as readonly [number, number, number];
  const n = b.shape[2]!;
  const [ag, am, ak] = a.strides as readonly [number, number, number];
  const [bg, bk, bn] = b.strides as readonly [number, number, number];
  return {
    source: `function(x0, x1) {
const c0 = this.thread.z;
const c1 = this.thread.y;
const c2 = this.thread.x;
let total = 0.0;
for (let p = 0; p < ${k}; p++) {
total += x0[${indexText(a.offset, [
      ['c0', ag],
      ['c1', am],
      ['p', ak],
    ])}] * x1[${indexText(b.offset, [
      ['c0', bg],
      ['p', bk],
      ['c2', bn],
    ])}];
}
return total;
}`,
    output: [n, m, g],
    constants: [],
  };
};
