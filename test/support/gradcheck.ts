/** Random applications of ops and the independent yardsticks the battery holds them to. */
import { type Backend, cpuBackend, evaluate, read, type Tensor, tensor } from '../../core/index.ts';
import { dtypes } from '../../core/ir/dtype.ts';
import { type Attrs, bindAll, type Op, type OperandSample, type Pick, type Sample } from '../../core/ir/tensor.ts';

/** A small seeded generator for tests (mulberry32). */
export function rng(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
export const picker =
  (random: () => number): Pick =>
  (lo, hi) =>
    lo + Math.floor(random() * (hi - lo + 1));

export const cpu: Backend = cpuBackend();

export function values(s: OperandSample, random: () => number): number[] {
  const n = s.shape.reduce((p, q) => p * q, 1);
  const integer = s.dtype !== undefined && !dtypes[s.dtype].float;
  const [lo, hi] = s.range ?? [-2, 2];
  const drawn = Array.from({ length: n }, () => {
    const v = lo + random() * (hi - lo);
    return integer ? Math.floor(v) : v;
  });
  return s.make ? [...s.make(drawn, s.shape)] : drawn;
}
/** Operands of one sample; floats as f64 or f32. */
export const operands = (sample: Sample<Attrs>, random: () => number, float: 'f32' | 'f64' = 'f64'): Tensor[] =>
  sample.operands.map((o) =>
    tensor(
      Float64Array.from(values(o, random)).map((v) => (float === 'f32' ? Math.fround(v) : v)) as unknown as number[],
      o.shape,
      !o.dtype || dtypes[o.dtype].float ? float : o.dtype,
    ),
  );

/** The same sample with f64 attributes where an op names a dtype. */
export const widen = (sample: Sample<Attrs>): Sample<Attrs> => {
  const a = sample.attrs as Record<string, unknown>;
  return { ...sample, attrs: Object.fromEntries(Object.entries(a).map(([k, v]) => [k, v === 'f32' ? 'f64' : v])) };
};
export const apply = (op: Op, inputs: readonly Tensor[], attrs: Attrs): readonly Tensor[] =>
  bindAll(op as never, inputs, attrs);

export async function numbers(t: Tensor, backend: Backend = cpu): Promise<number[]> {
  return Array.from(await read(evaluate(t, backend)));
}
export const inner = (a: readonly number[], b: readonly number[]): number => a.reduce((s, x, i) => s + x * b[i]!, 0);
export const scaleOf = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((s, x, i) => s + Math.abs(x * b[i]!), 0);

/**
 * The derivative of f at 0 by the widest step with which it is `got` within `tolerance`; by the first where it is with
 * none. A wide step may reach over a kink, a narrow one finds the same derivative between two of them; what is wrong is
 * wrong with all.
 */
export async function derivativeNear(
  f: (h: number) => Promise<number>,
  got: number,
  tolerance: number,
): Promise<number> {
  const steps = [1e-3, 1e-5, 1e-7];
  const first = await derivative(f, steps[0]);
  if (Math.abs(first - got) <= tolerance) return first;
  for (const h of steps.slice(1)) {
    const narrow = await derivative(f, h);
    if (Math.abs(narrow - got) <= tolerance) return narrow;
  }
  return first;
}

/** d/dh f(h) at 0 by central differences with two Richardson steps: error O(h⁶). */
export async function derivative(f: (h: number) => Promise<number>, h = 1e-3): Promise<number> {
  const central = async (e: number) => ((await f(e)) - (await f(-e))) / (2 * e);
  const [a, b, c] = [await central(h), await central(h / 2), await central(h / 4)];
  const [ab, bc] = [(4 * b - a) / 3, (4 * c - b) / 3];
  return (16 * bc - ab) / 15;
}
