/**
 * Losses and gradients of a batch, and what a test measures of them: per-sample gradients with the candidates in place,
 * from the same backward pass that gives the step its update.
 */
import {
  add,
  leaves,
  mapTree,
  mean,
  mul,
  stopGradient,
  sub,
  sum,
  type Tensor,
  type Tree,
  unflatten,
  unsqueeze,
  valueAndGrad,
  vmap,
} from '../../core/index.ts';
import { textContext } from '../../models/clip/text-encoder.ts';
import type { TextEncoderConfig, UNetConfig } from '../../models/config.ts';
import type { Tap } from '../../models/tap.ts';
import { unet } from '../../models/unet/index.ts';
import { updateModules } from '../../selora/attach.ts';
import {
  type Field,
  type Growth,
  type Measure,
  type Method,
  mapFields,
  type Params,
  type Settings,
} from '../../selora/methods/method.ts';
import { type Batch, type Frozen, mapModules, type PerModule, paramsOf, type State } from './state.ts';

/** A method as the programs of a run take it: X is what a test puts into a module, S what it measures of it, H that on the host. */
export type StepMethod<P extends Params, X, S, H> = Method<P, Settings, X, S, H>;

export interface LossOptions<P extends Params, X = unknown, S = unknown, H = unknown> {
  readonly configs: { readonly unet: UNetConfig; readonly text: TextEncoderConfig };
  readonly method: StepMethod<P, X, S, H>;
  /** the method's own, by name */
  readonly settings: Settings;
  readonly checkpointBlocks: boolean;
  /** sees the results of the U-Net's submodules while a program is traced; only without `checkpointBlocks` */
  readonly tap?: Tap;
}

/** How the method changes its ranks. @throws RangeError for one that does not */
export function growthOf<P extends Params, X, S, H>({ method }: { readonly method: StepMethod<P, X, S, H> }) {
  if (!method.growth) throw new RangeError(`${method.name} has no tests`);
  return method.growth as Growth<P, Settings, X, S, H, unknown>;
}

/** The module with what is only kept of it as constants: its gradient is 0. */
function held<P extends Params, X, S, H>(method: StepMethod<P, X, S, H>, p: P, settings: Settings): P {
  const fields = method.fields([1, 1], 1, settings);
  if (leaves<Field>(fields).every(({ trained }) => trained)) return p;
  return unflatten(
    p,
    mapFields(
      (x: Tensor, { trained, measured }) => (trained || measured ? x : stopGradient(x)),
      p as Tree<Tensor>,
      fields,
    ),
  );
}

/** per-sample losses [b]: weight·mean (prediction − target)² */
export function sampleLosses<P extends Params, X, S, H>(
  { configs, method, settings, checkpointBlocks, tap }: LossOptions<P, X, S, H>,
  params: PerModule<P>,
  base: Frozen,
  batch: Batch,
): Tensor {
  const attached = <N extends Tree<Tensor>>(net: N, of: { readonly [path: string]: P }): N =>
    updateModules(net, of, (module, p) => method.attach(module, held(method, p, settings), settings));
  const context = batch.context ?? textContext(attached(base.text, params.text), configs.text, batch.ids);
  const net = attached(base.unet, params.unet);
  const options = { checkpointBlocks, ...(tap ? { tap } : {}) };
  const d = sub(unet(net, configs.unet, batch.x, batch.t, context, options), batch.target);
  return mul(mean(mul(d, d), [1, 2, 3]), batch.weight);
}

/** the loss that is trained on: with the method's penalty, where it has one */
function trained<P extends Params, X, S, H>(o: LossOptions<P, X, S, H>, params: PerModule<P>, loss: Tensor): Tensor {
  if (!o.method.penalty) return loss;
  const all = [...Object.values(params.unet), ...Object.values(params.text)].map((p) => held(o.method, p, o.settings));
  return add(loss, o.method.penalty(all, o.settings));
}

type Differentiated<P> = { readonly loss: Tensor; readonly g: PerModule<P> };
const lossAndGradient = <P>(f: (p: PerModule<P>) => Tensor, at: PerModule<P>): [Tensor, PerModule<P>] =>
  valueAndGrad(f as never)(at as never) as unknown as [Tensor, PerModule<P>];

/** Gradients of the mean loss over the batch. */
export function gradients<P extends Params, X, S, H>(
  o: LossOptions<P, X, S, H>,
  params: PerModule<P>,
  base: Frozen,
  batch: Batch,
): Differentiated<P> {
  const [loss, g] = lossAndGradient((p) => trained(o, p, mean(sampleLosses(o, p, base, batch))), params);
  return { loss, g };
}

/** Loss and mean gradients over some samples, candidates in place, and what a measure keeps besides. */
export type Tested<P> = Differentiated<P> & { readonly kept?: PerModule<Tree<Tensor>> };

/**
 * One backward pass with the candidates in place. A measure that keeps something of single samples gets their gradients by
 * vmap(grad), whose mean is the gradient of the mean loss; any other needs that one only.
 */
export function testedGradients<P extends Params, X, S, H>(
  o: LossOptions<P, X, S, H>,
  s: State<P>,
  base: Frozen,
  batch: Batch,
  trials: PerModule<X>,
): Tested<P> {
  const growth = growthOf(o);
  const measure: Measure<P, S, X> = growth.measure(o.settings);
  const expanded = mapModules((p: P, path, n) => growth.place(p, trials[n][path]!, o.settings), paramsOf(s));
  const tried = [...Object.values(trials.unet), ...Object.values(trials.text)];
  if (!measure.samples || !(measure.single ? tried.some((x) => measure.single!(x)) : true))
    return gradients(o, expanded, base, batch);
  const one = (p: PerModule<P>, sample: Batch): Tensor => {
    const alone = Object.fromEntries(Object.entries(sample).map(([k, x]) => [k, unsqueeze(x, 0)])) as Batch;
    return trained(o, p, sum(sampleLosses(o, p, base, alone)));
  };
  const each = (p: PerModule<P>, sample: Batch) => lossAndGradient((q: PerModule<P>) => one(q, sample), p);
  const [losses, g] = vmap(each as never, [null, 0] as never)(expanded as never, batch as never) as unknown as [
    Tensor,
    PerModule<P>,
  ];
  return {
    loss: mean(losses),
    g: mapTree((x: Tensor) => mean(x, 0), g),
    kept: mapModules((x: P, path, n) => measure.samples!(x, expanded[n][path]!, trials[n][path]!), g),
  };
}

/** What the decisions are made from, by module; `at` are the parameters before the update. */
export function measured<P extends Params, X, S, H>(
  o: LossOptions<P, X, S, H>,
  t: Tested<P>,
  at: PerModule<P>,
): PerModule<S> {
  const measure = growthOf(o).measure(o.settings);
  return mapModules((g: P, path, n) => measure.scores(g, t.kept?.[n][path], at[n][path]!), t.g);
}

/** x·(1 − share) + y·share on every leaf: the means over two sets of samples as the mean over both. */
export function combine<T>(x: T, y: T, share: Tensor): T {
  const [xs, ys] = [leaves(x as never) as Tensor[], leaves(y as never) as Tensor[]];
  const out = xs.map((a, i) => add(mul(a, sub(1, share)), mul(ys[i]!, share)));
  return unflatten(x, out);
}
