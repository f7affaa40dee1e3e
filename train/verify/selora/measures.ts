/**
 * The other measures of an expansion test (`--fisher batch`, `--criterion fi-snr|loss-decrease`) against the stored
 * per-sample gradients of the expanded adapters, from which they are computed here by plain loops.
 */
import { evaluate, type HostArray, type Tensor } from '../../../core/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import type { RankSums } from '../../../selora/fisher.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { moduleName } from '../../../selora/networks.ts';
import type { Trial } from '../../../selora/trial.ts';
import { createSteps, mapModules, type PerNetwork, type StepOptions } from '../../step/step.ts';
import { type GoldenCase, type GoldenTensor, need } from '../golden.ts';
import { adaptersOf, type Check, candidatesOf, SCALE, stateOf } from './data.ts';
import { float32Error, scoreScale, worst } from './limits.ts';

/** By rank: mean square, square of the mean, and the share of the second in the first summed over entries. */
type Wanted = {
  readonly fisher: Float64Array;
  readonly batch: Float64Array;
  readonly natural: Float64Array;
  readonly entries: number;
};

/** Sums over the entries of each rank of per-sample gradients [n, rows, columns]; ranks are `columns` of A, `rows` of B. */
function sumsOf({ shape, data }: GoldenTensor, ranks: 'rows' | 'columns'): Wanted {
  const [n, rows, columns] = shape as [number, number, number];
  const of = () => new Float64Array(ranks === 'rows' ? rows : columns);
  const out = { fisher: of(), batch: of(), natural: of(), entries: rows * columns };
  for (let i = 0; i < rows * columns; i++) {
    let [mean, square] = [0, 0];
    for (let s = 0; s < n; s++) {
      const g = data[s * rows * columns + i]!;
      mean += g / n;
      square += (g * g) / n;
    }
    const rank = ranks === 'rows' ? Math.floor(i / columns) : i % columns;
    out.fisher[rank]! += square;
    out.batch[rank]! += mean * mean;
    out.natural[rank]! += square === 0 ? 0 : (mean * mean) / square;
  }
  return out;
}

const total = (x: ArrayLike<number>): number => Array.from(x).reduce((a, b) => a + b, 0);

/** settings under which each is measured */
const MEASURED = {
  batch: { fisher: 'batch' },
  signal: { criterion: 'fi-snr' },
  natural: { criterion: 'loss-decrease' },
} as const;

/** Nothing when the directory has no per-sample gradients of expanded adapters. */
export async function* verifyMeasures(
  { golden, backend, hyper }: Check,
  options: StepOptions<Adapter, Trial, RankSums<Tensor>, RankSums<HostArray>>,
): AsyncGenerator<GoldenCase> {
  const all = adaptersOf(golden);
  const { has } = scoreScale(golden);
  const stored = (name: string, side: 'A' | 'B') => golden.tensors.get(`expanded.per_sample_grad.${name}.${side}`);
  const whole = (n: keyof PerNetwork<unknown>): Adapters =>
    Object.fromEntries(
      Object.entries(all[n]).filter(
        ([path]) => has(moduleName(n, path)) && stored(moduleName(n, path), 'A') !== undefined,
      ),
    );
  const checked = { unet: whole('unet'), text: whole('text') };
  if (Object.keys({ ...checked.unet, ...checked.text }).length === 0) return;
  const wanted = mapModules((_a, path, n) => {
    const of = (side: 'A' | 'B') => need(golden.tensors, `expanded.per_sample_grad.${moduleName(n, path)}.${side}`);
    return { A: sumsOf(of('A'), 'columns'), B: sumsOf(of('B'), 'rows') };
  }, checked);
  // an error of δ·√(mean g²) in a mean gradient moves its square by 2δ·|mean|·√(mean g²), and its share by 2δ at most
  const limit =
    golden.precision === 'f64'
      ? {
          tolerance: 2 ** -22,
          why: 'f64, but stored as f32 (2⁻²⁴ of a gradient, twice in its square, and as much again)',
        }
      : {
          tolerance: 20 * (float32Error(golden, 'grad_rel_l2_max') ?? 1e-5),
          why: "f32; ten times the reference's own float32 error of the gradients, twice in a square",
        };
  for (const measure of ['batch', 'signal', 'natural'] as const) {
    const settings = settingsOf(selora, { scale: SCALE, ...MEASURED[measure] });
    const programs = createSteps({ ...options, settings });
    const state = evaluate(stateOf(all), backend);
    const candidates = evaluate(candidatesOf(golden, all, state), backend);
    const sums = await programs.readSums(programs.tested(state, golden.base, golden.batch, hyper, candidates).sums);
    const name = { batch: 'squares of the batch gradient', signal: 'signal of the new row', natural: 'natural scores' };
    yield {
      ...(await worst(name[measure], checked, (_module, network, path) => {
        const [got, { A, B }] = [sums[network][path]!, wanted[network][path]!];
        const rank = rankOf(checked[network][path]!);
        if (measure === 'signal')
          return Math.abs(got.gain![rank]! - B.batch[rank]!) / Math.sqrt(B.batch[rank]! * B.fisher[rank]!);
        const both = (of: 'fisher' | 'batch' | 'natural') => total(A[of]) + total(B[of]);
        const found = total(got.a) + total(got.b);
        if (measure === 'natural') return Math.abs(found - both('natural')) / (A.entries + B.entries);
        return Math.abs(found - both('batch')) / Math.sqrt(both('batch') * both('fisher'));
      })),
      ...limit,
    };
    programs.trim();
  }
}
