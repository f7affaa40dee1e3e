/** How far SeLoRA's numbers may lie from the golden ones, and the worst module of each kind. */
import { read, type Tensor } from '../../../core/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import { moduleName } from '../../../selora/networks.ts';
import type { Network, PerNetwork, State } from '../../step/step.ts';
import { distance } from '../distances.ts';
import { type GoldenCase, type GoldenTensor, need } from '../golden.ts';
import type { SeloraGolden } from './data.ts';

/** f64 limits for numbers that are stored whole, and f32 limits from the distance of the reference's own two runs. */
export function limit(
  golden: SeloraGolden,
  float32: number | undefined,
  what: string,
): Pick<GoldenCase, 'tolerance' | 'why'> {
  if (golden.precision === 'f64') return { tolerance: 1e-9, why: 'f64, long sums in another order' };
  return { tolerance: 10 * (float32 ?? 1e-5), why: `f32; ten times the reference's own float32 error of ${what}` };
}
export const float32Error = ({ json }: SeloraGolden, name: string) => json.numbers.float32_vs_float64[name];

/**
 * A loss, relative to its expected value.
 * @param options.updates optimizer steps that lie behind it
 * @param options.samples number of samples, where it is the loss of one of them
 */
export function lossCase(
  golden: SeloraGolden,
  name: string,
  actual: number,
  expected: number,
  { updates = 0, samples = 1 }: { readonly updates?: number; readonly samples?: number } = {},
): GoldenCase {
  const size = Math.abs(expected) || 1;
  const found = { case: `selora ${name}`, error: Math.abs(actual - expected) / size };
  if (golden.precision === 'f64' && updates === 0)
    return { ...found, tolerance: 1e-10, why: 'f64, another order of summation' };
  if (golden.precision === 'f64')
    return { ...found, tolerance: 1e-9, why: 'f64; Adam divides small gradients by their own size' };
  // a run that happened to make no error says nothing: at least 1e-7 is allowed for after updates
  const float32 = samples * Math.max(lossError(golden), updates === 0 ? 0 : 1e-7);
  return {
    ...found,
    tolerance: Math.max((10 * float32) / size, 8 * 2 ** -24),
    why: "f32; ten times the error of the reference's float32 run, at least 8 roundings",
  };
}
/** Tensors that are stored rounded to float32, relative to their size. */
export const storedLimit = (
  golden: SeloraGolden,
  float32: number | undefined,
  what: string,
): Pick<GoldenCase, 'tolerance' | 'why'> =>
  golden.precision === 'f64'
    ? { tolerance: 2e-7, why: 'f64, but stored as f32 (2⁻²⁴ of a value)' }
    : limit(golden, float32, what);
export const mean = (x: ArrayLike<number>): number => Array.from(x).reduce((a, b) => a + b, 0) / x.length;
const lossError = ({ json: { numbers } }: SeloraGolden): number => Math.abs(numbers.loss_float32 - numbers.loss);

/** The largest of an error over all modules, with the module's name. */
export async function worst(
  name: string,
  modules: PerNetwork<{ readonly [path: string]: unknown }>,
  error: (module: string, network: Network, path: string) => number | Promise<number>,
): Promise<{ readonly case: string; readonly error: number }> {
  let most = { error: -1, module: 'none' };
  let count = 0;
  for (const network of ['unet', 'text'] as const)
    for (const path of Object.keys(modules[network])) {
      const module = moduleName(network, path);
      const e = await error(module, network, path);
      count++;
      if (!(e <= most.error)) most = { error: Number.isNaN(e) ? Number.POSITIVE_INFINITY : e, module };
    }
  return { case: `selora ${name} of ${count} modules, worst ${most.module}`, error: most.error };
}

/** Below this share of the largest score, a score is the square of roundings, in f32 too. */
const NOTHING = 1e-12;
/**
 * The largest score of all modules, and which modules have one of their own. Where a softmax sees one key alone (a text of
 * one id, a picture of one pixel) queries and keys have no gradient: their ratio and Adam's step are those of roundings.
 */
export function scoreScale({ json }: SeloraGolden, start = false) {
  const fi = (module: string): number => (start ? json.modules[module]!.start?.fi : json.modules[module]!.fi) ?? 0;
  const largest = Object.keys(json.modules).reduce((most, module) => Math.max(most, fi(module)), 0);
  return { start, largest, has: (module: string): boolean => fi(module) > NOTHING * largest };
}

/** ‖actual − expected‖/‖expected‖ of A and B together. @param least what counts at least as ‖expected‖ */
export function relativeL2(pairs: readonly (readonly [ArrayLike<number>, GoldenTensor])[], least = 0): number {
  let [difference, size] = [0, 0];
  for (const [actual, { data }] of pairs) {
    if (actual.length !== data.length) return Number.POSITIVE_INFINITY;
    for (const [i, want] of data.entries()) {
      difference += (actual[i]! - want) ** 2;
      size += want ** 2;
    }
  }
  return Math.sqrt(difference / (Math.max(size, least ** 2) || 1));
}

/** The trained ranks of a padded A[d_in, c] or B[c, d_out]. */
export async function unpadded(x: Tensor, side: 'A' | 'B', rank: number): Promise<Float64Array> {
  const values = Float64Array.from(await read(x));
  if (side === 'B') return values.subarray(0, rank * x.shape[1]!);
  const [rows, capacity] = x.shape as [number, number];
  return Float64Array.from({ length: rows * rank }, (_, i) => values[Math.floor(i / rank) * capacity + (i % rank)]!);
}

/** The trained ranks in a state against the adapters stored after that many Adam steps: largest difference. */
export async function adaptersAfter(
  golden: SeloraGolden,
  step: number,
  state: State<Adapter>,
  adapters: PerNetwork<Adapters>,
  name: string,
): Promise<GoldenCase> {
  const { has } = scoreScale(golden);
  const found = await worst(name, adapters, async (module, network, path) => {
    if (!has(module)) return 0;
    const rank = rankOf(adapters[network][path]!);
    let most = 0;
    for (const side of ['A', 'B'] as const) {
      const values = await unpadded(state[network][path]!.p[side], side, rank);
      const expected = need(golden.tensors, `adam${step}.${module}.${side}`).data;
      most = Math.max(most, distance(values, expected));
    }
    return most;
  });
  if (golden.precision === 'f64') return { ...found, tolerance: 2e-7, why: 'f64, but stored as f32 (2⁻²⁴ of a value)' };
  const float32 = float32Error(golden, `adam${step}_abs_max`) ?? float32Error(golden, 'adam5_abs_max');
  return { ...found, ...storedLimit(golden, float32, 'these adapters') };
}

/** The module by which to see whether adapters after so many steps are stored. */
export const firstModule = (adapters: PerNetwork<Adapters>): [Network, string] =>
  Object.keys(adapters.unet).length > 0
    ? ['unet', Object.keys(adapters.unet)[0]!]
    : ['text', Object.keys(adapters.text)[0]!];
