/**
 * One training step of the shipped base, by the code that trains: what goes in, what comes out, the test of every module,
 * and of one module what each sample adds to its scores, and what a drawn column was expected to.
 */
import { type Backend, CoreError, evaluate, mapTree, mul, read, readScalar, type Tensor } from '../../../core/index.ts';
import type { Adapter } from '../../../selora/adapter.ts';
import type { Decision, RankSums } from '../../../selora/fisher.ts';
import { inputsOf, totalRankOf } from '../../../selora/methods/low-rank.ts';
import type { Method, Settings } from '../../../selora/methods/method.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { moduleName, networks } from '../../../selora/networks.ts';
import { adamDefaults } from '../../optimise/optimizer.ts';
import { ratesOf } from '../../optimise/rates.ts';
import { batchSource } from '../../step/batches.ts';
import { testedStep } from '../../step/growth.ts';
import { startState } from '../../step/ranks.ts';
import { type Batch, createSteps, hyperOf, paramsOf, type Ranks, type State } from '../../step/step.ts';
import { type Block, blocksOf } from '../../trace/blocks.ts';
import { kernelsOf } from '../../trace/kernels.ts';
import { latentOf, type ReadFile, type Ready, readBase } from './base.ts';
import { type Inner, type InnerValue, innerOf, innerValue, type Within } from './inside.ts';
import { type Looked, lookAt, type Showing, showingOf } from './look.ts';
import { candidatesOf, type Module, testOf } from './module-test.ts';
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
/** What a step with a test gave. */
export interface Stepped {
  readonly step: number;
  /** each sample of the batch: which report, its timestep, its loss before the update */
  readonly samples: readonly { readonly report: string; readonly t: number; readonly loss: number }[];
  readonly loss: number;
  readonly norm: number;
  readonly decisions: readonly Decision[];
  readonly ranks: number;
  /** of the model, as they are drawn */
  readonly blocks: readonly Block[];
  readonly ms: number;
}
/** The sliders of the page. */
export interface StepAsk {
  readonly lambda: number;
  readonly gainA: number;
  /** squares of samples (the paper) or of the batch (the published code) */
  readonly fisher: 'per-sample' | 'batch';
}

type Steps = ReturnType<typeof createSteps<Adapter, unknown, RankSums<Tensor>, RankSums<ArrayLike<number>>>>;
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
  let within: Within | undefined;
  const programs = new Map<string, Steps>();

  async function ready(tell: Tell): Promise<{ backend: Backend; base: Ready }> {
    const backend = await backendNow();
    if (opened?.backend !== backend) {
      opened = { backend, ready: readBase(readFile, backend, tell) };
      standing = undefined;
      last = undefined;
      showing = undefined;
      within = undefined;
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
      showing ??= showingOf(base, backend);
      return lookAt(base, backend, showing, report, t, seed);
    },

    /** The adapters as a run begins with them. */
    async restart(tell: Tell, ask: StepAsk): Promise<void> {
      const { backend, base } = await ready(tell);
      standing = { backend, now: begin(base, backend, ask), made: 0 };
      last = undefined;
      within = undefined;
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
      within = undefined;
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
        blocks: blocksOf(base.configs.unet),
        ms: performance.now() - start,
      };
    },

    /** What is inside the last step: its kernels, and the modules whose values may be asked for. */
    async inside(tell: Tell, ask: StepAsk): Promise<Inner> {
      const { backend, base } = await ready(tell);
      if (!last) throw new CoreError('make a step first');
      const settings = settingsOf(base, ask);
      const { before, batch, step } = last;
      const hyper = hyperOf(selora as never, ratesOf(base.run, step - 1, STEPS), base.run.seed, step, STEPS);
      const { candidates } = candidatesOf({ ...last, base, settings, gainA: ask.gainA });
      const { tested } = stepsOf(base, backend, `step ${ask.fisher}`, settings);
      within ??= await innerOf({
        backend,
        base,
        loss: lossOf(base, settings),
        params: paramsOf(before.state),
        batch,
        kernels: () => kernelsOf(tested, before.state, base.frozen, batch, hyper, candidates as never),
        tell,
      });
      return within.told;
    },

    /** Value and cotangent of a module in the first sample of the last step. */
    async insideValue(_: Tell, name: string): Promise<InnerValue> {
      if (!within) throw new CoreError('look inside the step first');
      return innerValue(within, name);
    },

    /** The test of one module in the last step, sample by sample. */
    async module(tell: Tell, ask: StepAsk, name: string): Promise<Module> {
      const { backend, base } = await ready(tell);
      if (!last) throw new CoreError('make a step first');
      const settings = settingsOf(base, ask);
      return testOf(name, {
        ...last,
        ...ask,
        base,
        backend,
        settings,
        loss: lossOf(base, settings),
        bySample: (method) => stepsOf(base, backend, 'by sample', settings, method),
        tell,
      });
    },
  };
}
