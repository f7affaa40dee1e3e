/** Whether the derivative of one's own function is right: against central differences, and backend against backend. */
import { cpuBackend } from '../backends/cpu/index.ts';
import type { Backend } from '../compile/backend.ts';
import { compile, evaluate } from '../compile/compile.ts';
import { read, tensor } from '../compile/data.ts';
import { type DType, isFloat } from '../ir/dtype.ts';
import { ShapeError } from '../ir/errors.ts';
import type { Tensor } from '../ir/tensor.ts';
import { entries, type Tree, unflatten } from '../ir/tree.ts';
import { coordinatesOf, sizeOf } from '../ir/view.ts';
import { grad } from '../transforms/grad.ts';

/** One element of a gradient and what it should be. */
export interface Worst {
  /** the leaf */
  readonly path: string;
  /** coordinates in the leaf */
  readonly index: readonly number[];
  /** what `grad` says */
  readonly got: number;
  /** what it should be */
  readonly want: number;
  /** |got − want|, as a part of the largest entry of the leaf's gradient (at least of 1) */
  readonly error: number;
}
/** What `checkGrad` found. */
export interface GradReport {
  /** all errors within tolerance */
  readonly ok: boolean;
  /** in f64, unless the function holds f32 tensors of its own */
  readonly dtype: DType;
  /** the element that is off most, at the best step */
  readonly worst: Worst;
  /** the largest error at each step h of the differences: falls with h², then rises with rounding */
  readonly byStep: readonly { readonly h: number; readonly error: number }[];
  /** the gradient on each backend in f32 against the reference */
  readonly backends: readonly { readonly name: string; readonly worst: Worst }[];
  /** all of it in a few lines */
  readonly text: string;
}
/** What `checkGrad` may be told. */
export interface CheckGradOptions {
  /** backends whose gradient is compared too */
  readonly backends?: readonly Backend[];
  /** steps h of the differences, tried one after the other */
  readonly steps?: readonly number[];
  /** largest error that is right; default 1e-6 in f64, 1e-2 in f32; of backends 1e-4 */
  readonly tolerance?: number;
  /** elements of each leaf that differences are taken of, spread over it */
  readonly elements?: number;
}

const worseOf = (a: Worst | undefined, b: Worst): Worst =>
  a && !(b.error > a.error) && !Number.isNaN(b.error) ? a : b;

/**
 * `await checkGrad(f, x)`: whether grad(f)(x) of a scalar function is right, as a report: the worst leaf and element, the
 * error against the step h of central differences, and each backend against the reference. x is a tree of data tensors,
 * taken in f64. Cost: two evaluations on the reference for every step and checked element.
 * @throws ShapeError when f's result is not a scalar
 * @example const report = await checkGrad((w: Tensor) => loss(w, batch), w); if (!report.ok) throw new Error(report.text);
 */
export async function checkGrad<X extends Tree<Tensor>>(
  f: (x: X) => Tensor,
  x: X,
  options: CheckGradOptions = {},
): Promise<GradReport> {
  const cpu = cpuBackend() as Backend;
  const list = entries<Tensor>(x);
  const host = await Promise.all(list.map(async ([, t]) => Float64Array.from(await read(t))));
  const at = (float: DType, values: readonly Float64Array[]): X =>
    unflatten(
      x,
      list.map(([, t], i) => {
        const dtype = isFloat(t.dtype) ? float : t.dtype;
        return tensor([...values[i]!], t.shape, dtype);
      }),
    );
  const gradientsIn = async (backend: Backend, float: DType): Promise<readonly Float64Array[]> => {
    const g = entries<Tensor>(evaluate(grad(f)(at(float, host)), backend));
    return Promise.all(g.map(async ([, t]) => Float64Array.from(await read(t))));
  };
  // a function that holds f32 tensors cannot take f64 ones
  const exact = async () => {
    try {
      return ['f64', await gradientsIn(cpu, 'f64')] as const;
    } catch (error) {
      if (!(error instanceof ShapeError) || !error.message.includes('equal dtypes')) throw error;
      return ['f32', await gradientsIn(cpu, 'f32')] as const;
    }
  };
  const [dtype, gradients] = await exact();
  const floats = list.flatMap(([, t], i) => (isFloat(t.dtype) && sizeOf(t.shape) > 0 ? [i] : []));
  const scales = gradients.map((g) => Math.max(1, ...g.map(Math.abs)));
  const compared = (leaf: number, element: number, got: number, want: number): Worst => ({
    path: list[leaf]![0],
    index: coordinatesOf(element, list[leaf]![1].shape),
    got,
    want,
    error: got === want ? 0 : Math.abs(got - want) / scales[leaf]!,
  });

  const value = compile<[x: X], Tensor>(f, { backend: cpu, name: 'checkGrad' });
  const moved = async (leaf: number, element: number, by: number): Promise<number> => {
    const values = host.map((v, i) => (i === leaf ? v.with(element, v[element]! + by) : v));
    return (await read(value(at(dtype, values))))[0]!;
  };
  const steps = options.steps ?? (dtype === 'f64' ? [1e-2, 1e-3, 1e-4, 1e-5] : [1e-1, 1e-2]);
  const byStep: { h: number; error: number; worst: Worst }[] = [];
  for (const h of steps) {
    let worst: Worst | undefined;
    for (const leaf of floats) {
      const n = host[leaf]!.length;
      const checked = Math.min(n, options.elements ?? 32);
      for (let k = 0; k < checked; k++) {
        const element = Math.floor((k * n) / checked);
        const want = ((await moved(leaf, element, h)) - (await moved(leaf, element, -h))) / (2 * h);
        worst = worseOf(worst, compared(leaf, element, gradients[leaf]![element]!, want));
      }
    }
    if (worst) byStep.push({ h, error: worst.error, worst });
  }
  const [best] = [...byStep].sort((a, b) => a.error - b.error);
  if (!best) throw new ShapeError('checkGrad: x holds no floats to differentiate by');

  const backends: { name: string; worst: Worst }[] = [];
  for (const backend of options.backends ?? []) {
    const theirs = await gradientsIn(backend, 'f32');
    let worst: Worst | undefined;
    for (const leaf of floats)
      for (const [element, got] of theirs[leaf]!.entries())
        worst = worseOf(worst, compared(leaf, element, got, gradients[leaf]![element]!));
    backends.push({ name: backend.name, worst: worst! });
  }
  const tolerance = options.tolerance ?? (dtype === 'f64' ? 1e-6 : 1e-2);
  const ok = best.error <= tolerance && backends.every((b) => b.worst.error <= Math.max(tolerance, 1e-4));
  const tell = ({ path, index, got, want, error }: Worst): string =>
    `${path || 'x'}[${index.join(', ')}]: ${got} against ${want}, off by ${error.toExponential(1)}`;
  const text = [
    `${ok ? 'right' : 'WRONG'} in ${dtype}, worst ${tell(best.worst)}`,
    `error against h: ${byStep.map(({ h, error }) => `${h} ${error.toExponential(1)}`).join(', ')}`,
    ...backends.map((b) => `${b.name} against the reference, worst ${tell(b.worst)}`),
  ].join('\n');
  return { ok, dtype, worst: best.worst, byStep: byStep.map(({ h, error }) => ({ h, error })), backends, text };
}
