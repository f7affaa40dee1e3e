/**
 * One training step of the shipped base, by the code that trains: what goes in, what comes out, the test of every module,
 * and of one module what each sample adds to its scores, and what a drawn column was expected to.
 */
import {
  type Backend,
  CoreError,
  capture,
  compile,
  concat,
  evaluate,
  fold,
  key,
  mapTree,
  mean,
  mul,
  normal,
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
import { idsTensor, textContext } from '../../../models/clip/text-encoder.ts';
import { addNoise, alphaBar, predictionCoefficients, trainingTarget } from '../../../models/schedulers/index.ts';
import { type Adapter, hostKey } from '../../../selora/adapter.ts';
import type { Decision, RankSums } from '../../../selora/fisher.ts';
import { drawCandidates } from '../../../selora/growth.ts';
import { inputsOf, totalRankOf } from '../../../selora/methods/low-rank.ts';
import type { Method, Settings } from '../../../selora/methods/method.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { fromModuleName, moduleName, type Network, networks } from '../../../selora/networks.ts';
import { toGrey } from '../../data/pictures/grey.ts';
import { decodeProgram, denoiseProgram, vaeFactor } from '../../model/programs.ts';
import { adamDefaults } from '../../optimise/optimizer.ts';
import { ratesOf } from '../../optimise/rates.ts';
import { batchSource } from '../../step/batches.ts';
import { sampleLosses } from '../../step/gradients.ts';
import { testedStep } from '../../step/growth.ts';
import { capacityFor, startState } from '../../step/ranks.ts';
import { type Batch, createSteps, hyperOf, paramsOf, type Ranks, type State } from '../../step/step.ts';
import { type ReadFile, type Ready, readBase } from './base.ts';
import { type Numbers, numbersOf } from './numbers.ts';
import type { Tell } from './protocol.ts';

/** updates of the run this step is one of */
const STEPS = 200;

/** The base as the page shows it. */
export interface Opening {
  readonly reports: readonly string[];
  /** grey, 0 to 1, side × side */
  readonly films: readonly Float32Array[];
  readonly side: number;
  readonly modules: readonly { readonly name: string; readonly dIn: number; readonly dOut: number }[];
  readonly timesteps: number;
  readonly lambda: number;
  readonly gainA: number;
}
/** A sample on its way through the model. */
export interface Looked {
  /** [h, w, c] each */
  readonly latent: Numbers;
  readonly noise: Numbers;
  readonly noisy: Numbers;
  readonly prediction: Numbers;
  readonly target: Numbers;
  /** what the model takes the picture for, decoded; grey */
  readonly picture: Float32Array;
  /** the picture through the autoencoder alone; grey */
  readonly autoencoded: Float32Array;
  readonly loss: number;
  readonly predicts: string;
}
/** What a step with a test gave. */
export interface Stepped {
  readonly step: number;
  /** each sample of the batch: which report, its timestep, its loss before the update */
  readonly samples: readonly { readonly report: string; readonly t: number; readonly loss: number }[];
  readonly loss: number;
  readonly norm: number;
  readonly decisions: readonly Decision[];
  readonly ranks: number;
  readonly ms: number;
}
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
/** The sliders of the page. */
export interface StepAsk {
  readonly lambda: number;
  readonly gainA: number;
  /** squares of samples (the paper) or of the batch (the published code) */
  readonly fisher: 'per-sample' | 'batch';
}

type Steps = ReturnType<typeof createSteps<Adapter, unknown, RankSums<Tensor>, RankSums<ArrayLike<number>>>>;
/** What shows a sample; compiled once, as a slider asks for it again and again. */
type Showing = {
  readonly denoise: ReturnType<typeof denoiseProgram>;
  readonly decode: ReturnType<typeof decodeProgram>;
};
type Standing = {
  readonly state: State<Adapter>;
  readonly ranks: Ranks;
  readonly memories: Readonly<Record<string, never>>;
};

/** The page's step: the base is read when it is first asked for, once for each backend. */
export function stepLab(readFile: ReadFile, backendNow: () => Promise<Backend>) {
  let opened: { readonly backend: Backend; readonly ready: Promise<Ready> } | undefined;
  let standing: { readonly backend: Backend; readonly now: Standing; readonly made: number } | undefined;
  let last: { readonly batch: Batch; readonly before: Standing; readonly step: number } | undefined;
  let showing: Showing | undefined;
  const programs = new Map<string, Steps>();

  async function ready(tell: Tell): Promise<{ backend: Backend; base: Ready }> {
    const backend = await backendNow();
    if (opened?.backend !== backend) {
      opened = { backend, ready: readBase(readFile, backend, tell) };
      standing = undefined;
      last = undefined;
      showing = undefined;
      programs.clear();
    }
    return { backend, base: await opened.ready };
  }
  const settingsOf = (base: Ready, ask: StepAsk): Settings & Ready['run'] => ({ ...base.run, ...ask });
  const lossOf = (base: Ready, settings: Settings, method = selora as never) => ({
    configs: { unet: base.configs.unet, text: base.configs.textEncoder },
    method,
    settings,
    checkpointBlocks: false,
  });
  const stepsOf = (base: Ready, backend: Backend, name: string, settings: Settings, method?: unknown): Steps => {
    let made = programs.get(name);
    if (!made) {
      const adam = { ...adamDefaults, weightDecay: base.run.weightDecay, decoupled: base.run.optimizer === 'adamw' };
      made = createSteps({ ...lossOf(base, settings, method as never), backend, adam, clip: base.run.clip }) as never;
      programs.set(name, made!);
    }
    return made!;
  };
  /** [h, w, c] */
  const latentOf = (base: Ready): readonly [number, number, number] => {
    const side = base.side / vaeFactor(base.configs.vae);
    return [side, side, base.configs.vae.latent_channels];
  };
  /** the batches of a run on these pairs */
  const sourceOf = (base: Ready) => {
    const batch = Math.min(base.run.batch, base.pairs.length);
    return batchSource({ ...base.run, batch }, base.schedule, base.pairs, latentOf(base), base.empty, STEPS);
  };
  const begin = (base: Ready, backend: Backend, ask: StepAsk): Standing => {
    const settings = settingsOf(base, ask);
    const { state, ranks } = startState(
      { method: selora as never, settings, seed: base.run.seed },
      base.places,
      backend,
    );
    return { state: state as unknown as State<Adapter>, ranks, memories: {} };
  };

  return {
    ready,

    async openBase(tell: Tell): Promise<Opening> {
      const { base } = await ready(tell);
      return {
        reports: base.pairs.map(({ text }) => text),
        films: base.films,
        side: base.side,
        modules: networks.flatMap((n) =>
          [...base.places[n]].map(([path, place]) => ({
            name: moduleName(n, path),
            dIn: inputsOf(place),
            dOut: place[0],
          })),
        ),
        timesteps: base.schedule.length,
        lambda: base.run.lambda,
        gainA: base.run.gainA,
      };
    },

    /** A held-out report at a timestep through the untouched base. */
    async look(tell: Tell, report: number, t: number, seed: number): Promise<Looked> {
      const { backend, base } = await ready(tell);
      const pair = base.pairs[report];
      if (!pair) throw new CoreError(`there is no report ${report}`);
      const latent = latentOf(base);
      const shape = [1, ...latent];
      showing ??= {
        denoise: denoiseProgram(backend, base.configs.unet),
        decode: decodeProgram(backend, base.configs.vae),
      };
      const { denoise, decode } = showing;
      const drawn = evaluate(normal(fold(key(seed), report), shape), backend);
      const noise = (await read(drawn)) as Float32Array;
      const z = pair.mean;
      const noisy = addNoise(base.schedule, z, noise, [t]) as Float32Array;
      const target = trainingTarget(base.schedule, z, noise, [t]) as Float32Array;
      const context = textContext(base.frozen.text, base.configs.textEncoder, idsTensor([pair.ids], 1));
      const predicted = denoise(base.frozen.unet, tensor(noisy, shape), tensor([t]), evaluate(context, backend));
      const prediction = (await read(predicted)) as Float32Array;
      const predicts = base.schedule.config.prediction_type;
      const signal = alphaBar(base.schedule, t);
      const { x0 } = predictionCoefficients(predicts, Math.sqrt(signal), Math.sqrt(1 - signal));
      const clean = noisy.map((x, i) => x0[0] * prediction[i]! + x0[1] * x);
      const grey = async (values: Float32Array) => toGrey(await read(decode(base.vae, tensor(values, shape))));
      const as = (values: ArrayLike<number>): Numbers => ({
        shape: latent,
        dtype: 'f32',
        values: Array.from(values),
      });
      const loss = prediction.reduce((s, x, i) => s + (x - target[i]!) ** 2, 0) / prediction.length;
      return {
        latent: as(z),
        noise: as(noise),
        noisy: as(noisy),
        prediction: as(prediction),
        target: as(target),
        picture: await grey(clean),
        autoencoded: await grey(z),
        loss,
        predicts,
      };
    },

    /** The adapters as a run begins with them. */
    async restart(tell: Tell, ask: StepAsk): Promise<void> {
      const { backend, base } = await ready(tell);
      standing = { backend, now: begin(base, backend, ask), made: 0 };
      last = undefined;
    },

    /** The next update of the run, with a test of every module in its backward pass. */
    async step(tell: Tell, ask: StepAsk): Promise<Stepped> {
      const { backend, base } = await ready(tell);
      const settings = settingsOf(base, ask);
      standing ??= { backend, now: begin(base, backend, ask), made: 0 };
      const start = performance.now();
      const step = standing.made + 1;
      const before = standing.now;
      const steps = stepsOf(base, backend, `step ${ask.fisher}`, settings);
      const source = sourceOf(base);
      const [batch] = source.training(step - 1, true) as [Batch];
      tell('losses before the update');
      const losses = Array.from(await read(steps.losses(paramsOf(before.state), base.frozen, batch)));
      // the step takes its state over, and the module's page asks about the state before it
      const kept = evaluate(
        mapTree((x: Tensor) => mul(x, 1), before.state as never),
        backend,
      ) as unknown as State<Adapter>;
      tell('the step, with a test in its backward pass');
      const parts = {
        method: selora as never as Method<Adapter, Settings, unknown, RankSums<Tensor>, RankSums<ArrayLike<number>>>,
        settings,
        seed: base.run.seed,
        places: base.places,
        programs: steps as never,
        frozen: base.frozen,
        backend,
      };
      const rates = ratesOf(base.run, step - 1, STEPS);
      const hyper = hyperOf(selora as never, rates, base.run.seed, step, STEPS);
      const tested = await testedStep(parts as never, before as never, [batch], [], hyper, step, STEPS);
      const { state, ranks, memories, decisions } = (await tested.decide()) as unknown as Standing & {
        decisions: readonly Decision[];
      };
      standing = { backend, now: { state, ranks, memories }, made: step };
      last = { batch, before: { ...before, state: kept }, step };
      const t = Array.from(await read(batch.t));
      const ids = Array.from(await read(batch.ids));
      const length = ids.length / t.length;
      const textOf = (i: number): string =>
        base.pairs.find((p) => p.ids.every((id, k) => id === ids[i * length + k]))?.text ??
        'no report (caption dropout)';
      return {
        step,
        samples: t.map((at, i) => ({ report: textOf(i), t: at, loss: losses[i]! })),
        loss: await readScalar(tested.loss),
        norm: await readScalar(tested.norm),
        decisions,
        ranks: totalRankOf(ranks),
        ms: performance.now() - start,
      };
    },

    /** The test of one module in the last step, sample by sample. */
    async module(tell: Tell, ask: StepAsk, name: string): Promise<Module> {
      const { backend, base } = await ready(tell);
      if (!last) throw new CoreError('make a step first');
      const { batch, before, step } = last;
      const [network, path] = (fromModuleName(name) ?? []) as [Network, string];
      const place = network && base.places[network].get(path);
      if (!place) throw new CoreError(`there is no module ${name}`);
      const settings = settingsOf(base, ask);
      const room = capacityFor(before.ranks, { method: selora as never, settings });
      const drawn = drawCandidates({ gainA: ask.gainA }, {
        step,
        key: hostKey(base.run.seed),
        places: base.places,
        ranks: before.ranks,
        room,
      } as never);

      tell('the squares of each sample');
      // the step's own backward pass, with nothing added up over samples
      const bySample = {
        samples: ({ A, B }: Adapter) => ({ a: sum(mul(A, A), 1), b: sum(mul(B, B), 2) }),
        scores: (_: Adapter, kept: unknown) => kept,
      };
      const growth = { ...selora.growth, measure: () => bySample };
      const steps = stepsOf(base, backend, 'by sample', settings, { ...selora, growth });
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
      const loss = lossOf(base, settings);
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
      const expected = (2 / ((1 + ask.gainA ** 2) * dIn)) * squared;

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
    },
  };
}

/** The part of the first sample as a matrix: tokens or pixels by channels. */
async function firstSample(x: Tensor, samples: number): Promise<Numbers> {
  const all = await read(x);
  const values = Array.from(all.subarray(0, all.length / samples), Number);
  const columns = x.shape.at(-1)!;
  return { shape: [values.length / columns, columns], dtype: x.dtype, values };
}
