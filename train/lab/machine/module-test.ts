/** The test of one module in its parts: the column, what each sample adds to the scores, what a drawn column was expected to add. */
import {
  type Backend,
  CoreError,
  capture,
  compile,
  concat,
  evaluate,
  mapTree,
  mean,
  mul,
  read,
  readScalar,
  sum,
  type Tensor,
  type Tree,
  tensor,
  unsqueeze,
  valueAndGrad,
  vmap,
  zeros,
} from '../../../core/index.ts';
import { type Adapter, hostKey } from '../../../selora/adapter.ts';
import type { RankSums } from '../../../selora/fisher.ts';
import { drawCandidates } from '../../../selora/growth.ts';
import { inputsOf } from '../../../selora/methods/low-rank.ts';
import type { Settings } from '../../../selora/methods/method.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { fromModuleName, type Network } from '../../../selora/networks.ts';
import { sampleLosses } from '../../step/gradients.ts';
import { capacityFor } from '../../step/ranks.ts';
import { type Batch, paramsOf, type Ranks, type State, type Steps } from '../../step/step.ts';
import type { Ready } from './base.ts';
import { type Numbers, numbersOf } from './numbers.ts';
import type { Tell } from './protocol.ts';

/** A module's test in its parts. */
export interface Module {
  readonly name: string;
  /** the candidate column */
  readonly column: Numbers;
  /** the squares of each sample: of the entries that are there, of the candidate's row */
  readonly samples: readonly { readonly original: number; readonly candidate: number }[];
  /** mean over the samples of what the candidate's row has on average over all columns that could be drawn */
  readonly expected: number;
  /** the module's last value and the derivative of the loss by it, of the first sample: rows × columns */
  readonly activation: Numbers;
  readonly cotangent: Numbers;
}

/** A step that was made, and what made it. */
export interface Made {
  readonly base: Ready;
  readonly backend: Backend;
  readonly batch: Batch;
  /** the run before the step */
  readonly before: { readonly state: State<Adapter>; readonly ranks: Ranks };
  readonly step: number;
  readonly gainA: number;
  readonly settings: Settings;
  /** what losses are made by */
  readonly loss: object;
  /** programs of the step by a method that keeps its samples apart */
  readonly bySample: (method: unknown) => Steps<Adapter, unknown, RankSums<Tensor>, RankSums<ArrayLike<number>>>;
  readonly tell: Tell;
}

/** The columns that a step's test puts into every module. */
export function candidatesOf({
  base,
  before,
  step,
  gainA,
  settings,
}: Pick<Made, 'base' | 'before' | 'step' | 'gainA' | 'settings'>) {
  const room = capacityFor(before.ranks, { method: selora as never, settings });
  return drawCandidates({ gainA }, {
    step,
    key: hostKey(base.run.seed),
    places: base.places,
    ranks: before.ranks,
    room,
  } as never);
}

/** @throws CoreError for a name that is no module's */
export async function testOf(name: string, o: Made): Promise<Module> {
  const { base, backend, batch, before, gainA, loss, tell } = o;
  const [network, path] = (fromModuleName(name) ?? []) as [Network, string];
  const place = network && base.places[network].get(path);
  if (!place) throw new CoreError(`there is no module ${name}`);
  const drawn = candidatesOf(o);

  tell('the squares of each sample');
  // the step's own backward pass, with nothing added up over samples
  const bySample = {
    samples: ({ A, B }: Adapter) => ({ a: sum(mul(A, A), 1), b: sum(mul(B, B), 2) }),
    scores: (_: Adapter, kept: unknown) => kept,
  };
  const growth = { ...selora.growth, measure: () => bySample };
  const steps = o.bySample({ ...selora, growth });
  const sums = steps.scores(before.state, base.frozen, [batch], drawn.candidates) as unknown as {
    [n in Network]: { [path: string]: { a: Tensor; b: Tensor } };
  };
  const { a, b } = sums[network][path]!;
  const [squaresA, squaresB] = [await read(a), await read(b)];
  const [count, width] = a.shape as [number, number];
  const rank = before.ranks[network][path]!;
  const samples = Array.from({ length: count }, (_, i) => {
    let original = 0;
    for (let r = 0; r < rank; r++) original += squaresA[i * width + r]! + squaresB[i * width + r]!;
    return { original, candidate: squaresB[i * width + rank]! };
  });

  tell('the expectation over all columns');
  // [A | I], [B ; D] with D = 0: the gradient by D is what every column's row of B is a combination of
  const p = paramsOf(before.state)[network][path]!;
  const [dIn, dOut] = [inputsOf(place), p.B.shape[1]!];
  const identity = tensor(
    Float32Array.from({ length: dIn * dIn }, (_, i) => (i % (dIn + 1) === 0 ? 1 : 0)),
    [dIn, dIn],
  );
  const params = paramsOf(before.state);
  const withD = (D: Tensor) => ({
    ...params,
    [network]: { ...params[network], [path]: { A: concat([p.A, identity], 1), B: concat([p.B, D], 0) } },
  });
  const one = (D: Tensor, sample: Tree<Tensor>): Tensor => {
    const alone = mapTree((x: Tensor) => unsqueeze(x, 0), sample) as unknown as Batch;
    return sum(sampleLosses(loss as never, withD(D) as never, base.frozen, alone));
  };
  const whole = compile(
    (D: Tensor, samples: Tree<Tensor>) => {
      const each = vmap(
        ((d: Tensor, x: Tree<Tensor>) => valueAndGrad(((v: Tensor) => one(v, x)) as never)(d as never)) as never,
        [null, 0] as never,
      ) as unknown as (d: Tensor, x: Tree<Tensor>) => [Tensor, Tensor];
      const [, g] = each(D, samples);
      return mean(sum(mul(g, g), [1, 2]));
    },
    { backend, name: 'expectation' },
  );
  const squared = await readScalar(whole(evaluate(zeros([dIn, dOut]), backend), batch as never));
  whole.trim();
  // K is uniform in ±√(6/((1 + a²)·d_in)): its entries have the variance 2/((1 + a²)·d_in)
  const expected = (2 / ((1 + gainA ** 2) * dIn)) * squared;

  tell('its value and the derivative by it');
  const net = network === 'unet' ? base.frozen.unet : base.frozen.text;
  const lossAt = (tree: Tree<Tensor>): Tensor => {
    const frozen = network === 'unet' ? { ...base.frozen, unet: tree } : { ...base.frozen, text: tree };
    return mean(sampleLosses(loss as never, params as never, frozen as never, batch));
  };
  const found = capture(lossAt as never, [path])(net as never);
  const seen = evaluate([found.intermediates[path]!, found.cotangents[path]!], backend);
  const [activation, cotangent] = await Promise.all(seen.map((x) => firstSample(x, count)));
  return {
    name,
    column: (await numbersOf([drawn.candidates[network][path]!.K], backend))[0]!,
    samples,
    expected,
    activation: activation!,
    cotangent: cotangent!,
  };
}

/** The part of the first sample as a matrix: tokens or pixels by channels. */
async function firstSample(x: Tensor, samples: number): Promise<Numbers> {
  const all = await read(x);
  const values = Array.from(all.subarray(0, all.length / samples), Number);
  const columns = x.shape.at(-1)!;
  return { shape: [values.length / columns, columns], dtype: x.dtype, values };
}
