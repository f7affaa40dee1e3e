/** One training step of any base, or of a U-Net configuration with random weights: built, timed, counted. */
import {
  type Backend,
  evaluate,
  type HostArray,
  type KernelReport,
  place,
  randomOf,
  readScalar,
  seedKey,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import {
  parseConfig,
  type TextEncoderConfig,
  textEncoderSchema,
  type UNetConfig,
  unetSchema,
} from '../../models/config.ts';
import { type Base, openBase } from '../../models/io/base.ts';
import { readJson } from '../../models/io/json.ts';
import { load } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { init } from '../../nn/index.ts';
import { type Adapter, hostKey, kaimingUniform } from '../../selora/adapter.ts';
import type { RankSums } from '../../selora/fisher.ts';
import { lowRank } from '../../selora/methods/low-rank.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { selora } from '../../selora/methods/selora.ts';
import type { Trial } from '../../selora/trial.ts';
import { UsageError } from '../cli/command.ts';
import { adaptersFromFile } from '../model/adapters.ts';
import { placesIn, placesOf, readAdapters, storageOf } from '../model/model.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { vaeFactor } from '../model/programs.ts';
import { chosenPaths } from '../model/targets.ts';
import { adamDefaults } from '../optimise/optimizer.ts';
import { slotOf } from '../step/ranks.ts';
import {
  type Batch,
  createSteps,
  type Frozen,
  type Hyper,
  mapModules,
  mapNetworks,
  type PerModule,
  type PerNetwork,
  type Ranks,
  type State,
  type Steps,
} from '../step/step.ts';
import { summary } from './clock.ts';

export type StepSettings = {
  readonly base?: string | undefined;
  readonly unetConfig?: string | undefined;
  readonly batch: number;
  readonly resolution: number;
  readonly rank: number;
  readonly targets: string;
  /** an adapter file or run folder whose modules and ranks are taken in place of these */
  readonly adapter?: string | undefined;
  /** so many of these, evenly over the model; default: all */
  readonly modules?: number | undefined;
  readonly checkpointBlocks: boolean;
};

/** Of a step without a test. */
export type PlainFigures = {
  readonly backend: string;
  readonly device: string;
  readonly modules: number;
  readonly trace_ms: number;
  readonly compile_ms: number;
  readonly step_ms: number;
  readonly step_ms_median: number;
  readonly peak_bytes: number;
  readonly rss_bytes: number;
  /** of contractions: dot, convolutions, attention */
  readonly gflop: number;
  /** of these, attention */
  readonly attention_gflop: number;
  readonly gflops: number;
  readonly images_per_s: number;
  readonly kernels: number;
};
/** Of the step with an expansion test. */
export type TestFigures = {
  readonly fisher_step_ms: number;
  /** the tested step over a plain step with the same room for ranks, taken in turns: median of the pairs */
  readonly fisher_ratio: number;
  /** what new room for ranks costs once, after the first program: trace, compile, write the commands */
  readonly replan_ms: number;
};
export type StepFigures = PlainFigures & Partial<TestFigures>;

/** the programs of a run of SeLoRA */
export type SeloraSteps = Steps<Adapter, Trial, RankSums<Tensor>, RankSums<HostArray>>;

/** A model, adapters with their moments, and a batch of noise: all a step needs, on the backend. */
export type StepSetup = {
  readonly steps: SeloraSteps;
  /** the same programs on another backend */
  readonly stepsOn: (backend: Backend) => SeloraSteps;
  readonly base: Frozen;
  readonly batch: Batch;
  readonly hyper: Hyper;
  /** a fresh state with room for so many ranks more than there are */
  readonly state: (more: number) => State<Adapter>;
  readonly candidates: (state: State<Adapter>) => PerModule<Trial>;
  readonly modules: number;
};

type Model = {
  readonly unet: UNetConfig;
  readonly text: TextEncoderConfig;
  readonly base: Frozen;
  readonly places: ModelPlaces;
  /** ranks of an adapter */
  readonly ranks?: Ranks | undefined;
  /** pixels per latent along a side */
  readonly factor: number;
  /** the text encoder is part of the step */
  readonly runsText: boolean;
};

/** @throws FileError naming what does not fit the base */
async function ranksOf(base: Base, adapter: string, places: ModelPlaces): Promise<Ranks> {
  const { name, adapter: file } = await readAdapters(base, [adapter]);
  const { unet, text } = adaptersFromFile(file, places, { file: name });
  return mapModules(({ A }: Adapter) => A.shape[1]!, { unet, text });
}
/** Every chosen module with its rank. @throws RangeError naming a pattern that matches nothing, UsageError for too many modules */
function ranksFor({ targets, modules, rank }: StepSettings, { places, ranks }: Model): Ranks {
  if (ranks !== undefined) return ranks;
  const chosen = chosenPaths(targets, places);
  const taken = modules === undefined ? chosen : evenly(chosen, modules);
  return mapNetworks((paths) => Object.fromEntries(paths.map((path) => [path, rank])), taken);
}

async function openModel({ base, unetConfig, adapter, modules }: StepSettings, backend: Backend): Promise<Model> {
  if ((base === undefined) === (unetConfig === undefined))
    throw new UsageError('--step needs either --base DIR or --unet-config FILE');
  if (adapter !== undefined && base === undefined)
    throw new UsageError('--adapter: its modules are those of a base; leave out --unet-config');
  if (adapter !== undefined && modules !== undefined)
    throw new UsageError('--adapter: has its own modules; leave out --modules');
  if (base !== undefined) {
    const opened = await openBase(base);
    const { configs, parts } = opened;
    const places = placesOf(opened);
    const how = { weights: storageOf(opened, backend), backend };
    const [net, text] = [unetSpec(configs.unet), textEncoderSpec(configs.textEncoder)];
    return {
      unet: configs.unet,
      text: configs.textEncoder,
      base: { unet: await load(net, parts.unet, how), text: await load(text, parts.text_encoder, how) },
      places,
      ranks: adapter === undefined ? undefined : await ranksOf(opened, adapter, places),
      factor: vaeFactor(configs.vae),
      runsText: true,
    };
  }
  const unet = parseConfig(unetSchema, await readJson(unetConfig!), unetConfig!);
  // never run: the context is random, too
  const text = parseConfig(
    textEncoderSchema,
    { hidden_size: 8, intermediate_size: 8, num_attention_heads: 1, num_hidden_layers: 1, vocab_size: 4 },
    'text encoder',
  );
  const net = unetSpec(unet);
  return {
    unet,
    text,
    base: { unet: init(net, 1), text: init(textEncoderSpec(text), 2) },
    places: { unet: placesIn(net), text: new Map() },
    factor: 8,
    runsText: false,
  };
}

/** @throws FileError for a broken model, UsageError or RangeError for settings that do not fit it */
export async function setUpStep(settings: StepSettings, backend: Backend): Promise<StepSetup> {
  const model = await openModel(settings, backend);
  const side = settings.resolution / model.factor;
  if (!Number.isInteger(side))
    throw new UsageError(`--resolution ${settings.resolution}: expected a multiple of ${model.factor}`);
  const { batch: n } = settings;
  const random = randomOf(seedKey(7));
  const normal = (...shape: number[]): Tensor =>
    tensor(
      Float32Array.from({ length: shape.reduce((p, q) => p * q, 1) }, () => random.normal()),
      shape,
    );
  const tokens = 77;
  const batch: Batch = {
    x: normal(n, side, side, model.unet.in_channels),
    t: tensor(Int32Array.from({ length: n }, (_, i) => Math.floor(((i + 0.5) * 1000) / n))),
    ids: tensor(
      Int32Array.from({ length: n * tokens }, (_, i) => (i * 31) % model.text.vocab_size),
      [n, tokens],
    ),
    target: normal(n, side, side, model.unet.out_channels),
    weight: tensor(new Float32Array(n).fill(1)),
    ...(model.runsText ? {} : { context: normal(n, tokens, model.unet.cross_attention_dim) }),
  };
  const ranks = ranksFor(settings, model);
  const adapters = mapNetworks((of, network) => {
    const places = new Map(Object.keys(of).map((path) => [path, model.places[network].get(path)!] as const));
    return lowRank.init(places, of, hostKey(3), { gainA: 0 });
  }, ranks);
  // B is not zero, as after some steps: every gradient has work to do
  const worn = mapModules(
    ({ A, B }) => ({
      A,
      B: tensor(kaimingUniform(hostKey(4), B.shape[1]!, B.shape[0]! * B.shape[1]!, { a: 9 }), B.shape),
    }),
    adapters,
  );
  const rate = tensor([1e-4], []);
  const stepsOn = (on: Backend): SeloraSteps =>
    createSteps({
      backend: on,
      configs: { unet: model.unet, text: model.text },
      method: selora,
      settings: settingsOf(selora),
      adam: adamDefaults,
      clip: 0,
      checkpointBlocks: settings.checkpointBlocks,
    });
  return {
    steps: stepsOn(backend),
    stepsOn,
    base: place(model.base, backend),
    batch,
    hyper: { unet: rate, text: rate },
    state: (more) =>
      evaluate(
        mapModules((a, path, n) => slotOf(a, lowRank.fields([1, 1], 1), ranks[n][path]! + more), worn),
        backend,
      ),
    candidates: (state) =>
      mapModules(({ p }, path, n) => {
        const [dIn, capacity] = p.A.shape as [number, number];
        const slot = Float32Array.from({ length: capacity }, (_, i) => (i === ranks[n][path]! ? 1 : 0));
        return {
          K: tensor(kaimingUniform(hostKey(path.length), dIn, dIn, { a: 0 }), [dIn, 1]),
          slot: tensor(slot, [1, capacity]),
        };
      }, state),
    modules: Object.keys(ranks.unet).length + Object.keys(ranks.text).length,
  };
}
/** So many of the paths, evenly over both networks in their order. @throws UsageError where there are fewer */
function evenly(all: PerNetwork<readonly string[]>, n: number): PerNetwork<readonly string[]> {
  const of = all.unet.length + all.text.length;
  if (n > of) throw new UsageError(`--modules ${n}: --targets chooses ${of}`);
  const taken = new Set(Array.from({ length: n }, (_, i) => Math.floor(((i + 0.5) * of) / n)));
  return {
    unet: all.unet.filter((_, i) => taken.has(i)),
    text: all.text.filter((_, i) => taken.has(all.unet.length + i)),
  };
}

const CONTRACTIONS = /^(dot|conv|convInput|convKernel|attention|attentionGrad)$/;
export const gigaFlop = (kernels: readonly KernelReport[]): number =>
  kernels.filter((k) => CONTRACTIONS.test(k.name)).reduce((sum, k) => sum + k.flops, 0) / 1e9;

/** Milliseconds of one run, from its call to its loss. */
type Run = () => Promise<number>;

/** Takes turns between the runs, so that whatever else the machine does meets all alike: `ms` for each, `least` rounds. */
async function inTurns(runs: readonly Run[], { ms, least }: { readonly ms: number; readonly least: number }) {
  const times = runs.map((): number[] => []);
  for (const end = performance.now() + ms * runs.length; performance.now() < end || times[0]!.length < least; )
    for (const [i, run] of runs.entries()) times[i]!.push(await run());
  return times;
}

/** Builds and times the step. `ms` is spent on each of the three programs; `plain`: on the step without a test alone. */
export async function benchStep(
  settings: StepSettings & { readonly plain?: boolean },
  backend: Backend,
  ms = 4000,
): Promise<StepFigures> {
  const { steps, base, batch, hyper, state: fresh, candidates, modules } = await setUpStep(settings, backend);
  const timedRun = (
    step: (s: State<Adapter>) => { readonly state: State<Adapter>; readonly loss: Tensor },
    start: State<Adapter>,
  ): Run => {
    let state = start;
    return async () => {
      const before = performance.now();
      const done = step(state);
      state = done.state;
      await readScalar(done.loss);
      return performance.now() - before;
    };
  };
  /** a plain step with so much room to spare, built and run once: the first run of a program writes its commands */
  const plain = async (more: number) => {
    const start = fresh(more);
    const { kernels, traceMs, buildMs } = steps.plain.inspect(start, base, batch, hyper);
    const run = timedRun((s) => steps.plain(s, base, batch, hyper), start);
    return { kernels, traceMs, buildMs, firstMs: await run(), run };
  };
  const first = await plain(0);
  const [times] = await inTurns([first.run], { ms, least: 3 });
  const { min, median } = summary(times!);
  const { peakBytes } = backend.memory();
  const gflop = gigaFlop(first.kernels);
  const figures: Omit<PlainFigures, 'rss_bytes'> = {
    backend: backend.name,
    device: backend.device,
    modules,
    trace_ms: first.traceMs,
    compile_ms: first.buildMs,
    step_ms: min,
    step_ms_median: median,
    peak_bytes: peakBytes,
    gflop,
    attention_gflop: gigaFlop(first.kernels.filter((k) => k.name.startsWith('attention'))),
    gflops: (gflop / min) * 1000,
    images_per_s: (settings.batch / min) * 1000,
    kernels: first.kernels.length,
  };
  const resident = () => process.resourceUsage().maxRSS * 1024;
  if (settings.plain) return { ...figures, rss_bytes: resident() };

  // the test needs room for one rank more: compared with a plain step that has it as well
  const roomy = await plain(1);
  const start = fresh(1);
  const tried = candidates(start);
  const tested = timedRun((s) => steps.tested(s, base, batch, hyper, tried), start);
  await tested();
  const [roomyTimes, testedTimes] = await inTurns([roomy.run, tested], { ms, least: 3 });
  const [roomyMin, testedMin] = [summary(roomyTimes!).min, summary(testedTimes!).min];
  // the median of neighbours' ratios: a ratio of two minima hangs on two lucky runs
  const ratios = testedTimes!.map((t, i) => t / roomyTimes![i]!);
  return {
    ...figures,
    fisher_step_ms: testedMin,
    fisher_ratio: summary(ratios).median,
    replan_ms: roomy.traceMs + roomy.buildMs + Math.max(0, roomy.firstMs - roomyMin),
    rss_bytes: resident(),
  };
}
