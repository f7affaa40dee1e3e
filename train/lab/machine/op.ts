/** One op tried out: its sample computed with its gradients, an element nudged, what feeds what, and the graph vmap writes. */
import {
  type Backend,
  CoreError,
  compile,
  cpuBackend,
  evaluate,
  findOp,
  mul,
  pullback,
  randomOf,
  read,
  seedKey,
  sum,
  type Tensor,
  tensor,
} from '../../../core/index.ts';
import { bytesOf, isFloat } from '../../../core/ir/dtype.ts';
import type { Attrs, Op, OperandSample } from '../../../core/ir/tensor.ts';
import { sizeOf } from '../../../core/ir/view.ts';
import { bindTo, sampleOf, valuesOf } from '../../explain/application.ts';
import { type Check, checkBatch, closedFormFor } from '../../explain/check.ts';
import { batchGraph, vjpGraph } from '../../explain/rules.ts';
import { type Numbers, numbersOf, tensorOf } from './numbers.ts';

/** Which op, with which numbers: those of a seed, or a person's own. */
export interface Ask {
  readonly op: string;
  readonly seed: number;
  /** values of operands, where they are not the seed's */
  readonly operands?: readonly (readonly number[] | undefined)[];
  /** cotangents of the results, where they are not the seed's */
  readonly cotangents?: readonly (readonly number[] | undefined)[];
}
/** What came out. */
export interface Tried {
  readonly operands: readonly Numbers[];
  readonly results: readonly Numbers[];
  /** of the results that a derivative may be asked of */
  readonly cotangents: readonly (Numbers | undefined)[];
  /** of the operands, nothing where there is no derivative */
  readonly gradients: readonly (Numbers | undefined)[];
  /** the backend it ran on, and why not on the chosen one */
  readonly ran: string;
  readonly flops: number;
  readonly bytes: number;
  readonly ms: number;
  readonly attrs: Readonly<Record<string, unknown>>;
}

const cpu = cpuBackend() as Backend;

/** sizes of two and three, by turns: small enough for every number to be seen, and no two axes taken for one another */
const small = () => {
  let turn = 0;
  return (low: number, high: number): number => Math.max(low, Math.min(high, 2 + (turn++ % 2)));
};
/** Two digits where that leaves the value in its range. */
const short = (x: number, { range: [low, high] = [-2, 2], make }: OperandSample): number => {
  const near = Math.round(x * 100) / 100;
  return make || near < low || near >= high ? x : near;
};
function opOf(name: string): Op {
  const op = findOp(name);
  if (!op) throw new CoreError(`there is no op ${name}`);
  return op;
}

/** An op applied to the numbers of a page. */
interface Applied {
  readonly op: Op;
  readonly attrs: Attrs;
  readonly inputs: readonly Tensor[];
  readonly outs: readonly Tensor[];
}
function applied(ask: Ask, float: 'f32' | 'f64'): Applied {
  const op = opOf(ask.op);
  const random = randomOf(seedKey(ask.seed));
  const { operands, attrs } = sampleOf(op, float, small());
  const inputs = operands.map((o, i) => {
    const drawn = Array.from(valuesOf(o, random), (x) => short(x, o));
    const values = ask.operands?.[i] ?? drawn;
    // every backend and the exact reference see the very same numbers
    const exact = isFloat(o.dtype ?? 'f32') ? values.map(Math.fround) : values;
    return tensor([...exact], o.shape, o.dtype);
  });
  return { op, attrs, inputs, outs: bindTo(op, inputs, attrs) };
}

/** Cotangents: quarters between −1 and 1, never 0, for the results that may carry one. */
function cotangentsOf(ask: Ask, { op, inputs, outs, attrs }: Applied): readonly (Tensor | undefined)[] {
  if (op.vjp === 'nondifferentiable') return outs.map(() => undefined);
  const closed = closedFormFor({ op, inputs, outs, attrs });
  const random = randomOf(seedKey(ask.seed + 1));
  return outs.map((o, i) => {
    const drawn = Array.from({ length: sizeOf(o.shape) }, () => {
      const x = Math.round(random.uniform() * 8 - 4) / 4;
      return x === 0 ? 0.5 : x;
    });
    return isFloat(o.dtype) && (closed?.[i] ?? true)
      ? tensor([...(ask.cotangents?.[i] ?? drawn)], o.shape, o.dtype)
      : undefined;
  });
}
/** The cotangents of all operands; undefined for those that have none. */
function gradientsOf({ op, inputs, outs }: Applied, given: readonly (Tensor | undefined)[]) {
  if (op.vjp === 'nondifferentiable' || given.every((g) => g === undefined)) return inputs.map(() => undefined);
  const floats = inputs.filter((x) => isFloat(x.dtype));
  const back = pullback(outs, given, floats);
  return inputs.map((x) => (isFloat(x.dtype) ? back[floats.indexOf(x)] : undefined));
}

/** Computes an op and its gradients on a backend; on the reference where the backend has no such type. */
export async function tryOp(backend: Backend, ask: Ask): Promise<Tried> {
  const a = applied(ask, 'f32');
  const { op, attrs, inputs, outs } = a;
  const refused = [...inputs, ...outs].find((t) => !backend.supports(t.dtype));
  const on = refused ? cpu : backend;
  const cotangents = cotangentsOf(ask, a);
  const gradients = gradientsOf(a, cotangents);
  const wanted = [...outs, ...gradients.flatMap((g) => g ?? [])];
  const start = performance.now();
  const all = await numbersOf(wanted, on);
  const ms = performance.now() - start;
  const given = await numbersOf([...inputs, ...cotangents.flatMap((c) => c ?? [])], cpu);
  let [nextGradient, nextCotangent] = [outs.length, inputs.length];
  return {
    operands: given.slice(0, inputs.length),
    results: all.slice(0, outs.length),
    cotangents: cotangents.map((c) => (c ? given[nextCotangent++] : undefined)),
    gradients: gradients.map((g) => (g ? all[nextGradient++] : undefined)),
    ran: refused ? `the reference, because ${backend.name} has no ${refused.dtype}` : on.device,
    flops: op.flops?.(inputs, attrs as never) ?? 0,
    bytes: [...inputs, ...outs].reduce((n, t) => n + bytesOf(t.dtype, sizeOf(t.shape)), 0),
    ms,
    attrs: Object.fromEntries(
      Object.entries(attrs).filter(
        ([, x]) => typeof x !== 'function' && !JSON.stringify(x, noTensors)?.includes(GRAPH),
      ),
    ),
  };
}
const GRAPH = '(graph)';
const noTensors = (_: string, x: unknown): unknown => (typeof x === 'object' && x !== null && 'outs' in x ? GRAPH : x);

/** The derivative of Σ⟨g, y⟩ by one element, three ways. */
export interface Nudged {
  /** by the rule in f64 */
  readonly rule: number;
  /** by the rule on the chosen backend */
  readonly onBackend: number | undefined;
  /** by central differences of width h in f64, for each h */
  readonly byStep: readonly { readonly h: number; readonly difference: number }[];
}
/** Σ⟨g, y⟩ in f64 as a function of its operands, compiled for the reference. */
function projected(ask: Ask): {
  readonly inputs: readonly Tensor[];
  readonly rule: readonly (Tensor | undefined)[];
  readonly value: (inputs: readonly Tensor[]) => Promise<number>;
} {
  const a = applied(ask, 'f64');
  const cotangents = cotangentsOf(ask, a);
  const f = compile(
    (xs: readonly Tensor[]) =>
      bindTo(a.op, xs, a.attrs).flatMap((y, i) => (cotangents[i] ? [sum(mul(y, cotangents[i]))] : [])),
    { backend: cpu },
  );
  return {
    inputs: a.inputs,
    rule: gradientsOf(a, cotangents),
    value: async (inputs) => {
      const parts = await Promise.all(f(inputs).map((t) => read(t)));
      return parts.reduce((n, [x]) => n + x!, 0);
    },
  };
}

/** Moves one element of an operand by ±h and compares with the rule. @throws CoreError where there is no derivative */
export async function nudge(
  backend: Backend,
  ask: Ask,
  operand: number,
  element: number,
  steps: readonly number[],
): Promise<Nudged> {
  const { inputs, rule, value } = projected(ask);
  const [g, x] = [rule[operand], inputs[operand]];
  if (!g || !x) throw new CoreError(`${ask.op}: no derivative by this operand`);
  const values = Array.from(await read(x), Number);
  const at = async (by: number): Promise<number> => {
    const moved = tensor(values.with(element, values[element]! + by), x.shape, x.dtype);
    return value(inputs.map((t, i) => (i === operand ? moved : t)));
  };
  const byStep: { h: number; difference: number }[] = [];
  for (const h of steps) byStep.push({ h, difference: ((await at(h)) - (await at(-h))) / (2 * h) });
  const { gradients } = await tryOp(backend, ask);
  return {
    rule: Number((await read(evaluate(g, cpu)))[element]),
    onBackend: gradients[operand]?.values[element],
    byStep,
  };
}

/** For each operand and each of its elements the results' elements that follow it: `feeds[operand][element][result]`. */
export async function feeds(ask: Ask): Promise<readonly (readonly (readonly (readonly number[])[])[])[]> {
  const { op, attrs, inputs, outs } = applied(ask, 'f64');
  const f = compile((xs: readonly Tensor[]) => [...bindTo(op, xs, attrs)], { backend: cpu });
  const host = await numbersOf(inputs, cpu);
  const { operands } = sampleOf(op, 'f64', small());
  const run = async (xs: readonly Tensor[]) => Promise.all(f(xs).map(async (t) => Array.from(await read(t), Number)));
  const before = await run(inputs);
  const found: number[][][][] = [];
  for (const [i, x] of host.entries()) {
    const [low, high] = operands[i]!.range ?? [-2, 2];
    const whole = !isFloat(x.dtype);
    // elsewhere in its range, also at its ends: a maximum only follows what becomes the largest
    const places = [low, low + (high - low) * 0.37, low + (high - low) * 0.71, high - (whole ? 1 : 1e-3)];
    const each: number[][][] = [];
    for (let e = 0; e < x.values.length; e++) {
      const followed = outs.map(() => new Set<number>());
      for (const place of places) {
        const moved = x.values.with(e, whole ? Math.floor(place) : place);
        const after = await run(inputs.map((t, j) => (j === i ? tensorOf({ ...x, values: moved }) : t)));
        for (const [k, values] of after.entries())
          for (const [j, y] of values.entries()) if (!Object.is(y, before[k]![j])) followed[k]!.add(j);
      }
      each.push(followed.map((s) => [...s].sort((a, b) => a - b)));
    }
    found.push(each);
  }
  return found;
}

/** The graph that vmap writes when some operands carry three samples, and the mapped op against a loop. */
export async function mapped(ask: Ask, which: readonly boolean[]): Promise<{ graph: readonly string[]; check: Check }> {
  const a = applied(ask, 'f32');
  return { graph: batchGraph(a, which), check: await checkBatch(a.op, ask.seed, which) };
}

/** The backward graph of the sample. */
export const backward = (ask: Ask): readonly string[] => vjpGraph(applied(ask, 'f32'));
