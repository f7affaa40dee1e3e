/** Training in a page, by the code that trains: several runs side by side, each a step at a time, so that a page may pause. */
import { type Backend, CoreError, evaluate, mapTree, mul, readScalar, type Tensor } from '../../../core/index.ts';
import { adapterContent } from '../../../models/io/adapter-write.ts';
import { streamSafetensors } from '../../../models/io/safetensors-write.ts';
import { totalRankOf } from '../../../selora/methods/low-rank.ts';
import type { Decided } from '../../../selora/methods/method.ts';
import { moduleName, networks } from '../../../selora/networks.ts';
import type { RunConfig } from '../../config/config.ts';
import { toGrey } from '../../data/pictures/grey.ts';
import { filmReader, filmRegions } from '../../metrics/films/detectors.ts';
import { judgeFilm, sayReading } from '../../metrics/films/score.ts';
import { adaptersFromFile } from '../../model/adapters.ts';
import type { Pipeline } from '../../model/pipeline.ts';
import { vaeFactor } from '../../model/programs.ts';
import { adaptedPipeline, createGenerator, type Generator, pictureOptions } from '../../model/sample.ts';
import { adamDefaults } from '../../optimise/optimizer.ts';
import { ratesOf } from '../../optimise/rates.ts';
import { unpadded } from '../../run/tensors.ts';
import { type BatchSource, batchSource } from '../../step/batches.ts';
import { type Standing, testedStep } from '../../step/growth.ts';
import { type Chosen, chosenOf, startState } from '../../step/ranks.ts';
import { createSteps, hyperOf, type Steps } from '../../step/step.ts';
import { adapterFileOf } from '../../trainer/adapter-form.ts';
import type { ReadFile, Ready } from './base.ts';
import { type Data, type DataAsk, makeData, readTokenizer } from './data.ts';
import type { Tell } from './protocol.ts';
import type { Side } from './sides.ts';

/** What a person may set; all else is as a default run has it. */
export interface TrainAsk {
  readonly method: Side;
  readonly rank: number;
  readonly lambda: number;
  readonly testEvery: number;
  readonly steps: number;
  readonly lr: number;
  readonly seed: number;
}
/** A run as a page begins to show it. */
export interface Begun {
  readonly id: number;
  readonly settings: RunConfig;
  readonly step: number;
  readonly modules: readonly {
    readonly path: string;
    readonly rank: number;
    readonly dIn: number;
    readonly dOut: number;
  }[];
}
/** What an update gave: a row of the metrics. */
export interface TrainRow {
  readonly step: number;
  readonly loss: number;
  readonly lr: number;
  readonly gradNorm: number;
  readonly totalRank: number;
  readonly seconds: number;
  readonly tests?: readonly Decided[];
}
/** A film of a report by the adapter of this moment. */
export interface Film {
  readonly step: number;
  /** RGB [side, side, 3] in [−1, 1], as `generate` writes it */
  readonly picture: Float32Array;
  /** what the detectors read in it, and whether it is what the report says */
  readonly reading?: string;
  readonly right?: boolean;
}

type Run = {
  readonly config: RunConfig;
  readonly chosen: Chosen;
  readonly batches: BatchSource;
  now: Standing;
  step: number;
  seconds: number;
  readonly tests: { readonly step: number; readonly tests: readonly Decided[] }[];
};

const MOST_RUNS = 4;

/** The page's runs. `ready`: the base of the machine's step page, and its backend. */
export function trainLab(
  readFile: ReadFile,
  ready: (tell: Tell) => Promise<{ readonly backend: Backend; readonly base: Ready }>,
) {
  let data: { readonly backend: Backend; readonly made: Data; readonly pipeline: Pipeline } | undefined;
  let draw: Generator | undefined;
  const runs = new Map<number, Run>();
  const programs = new Map<string, Steps>();
  let last = 0;

  const opened = async (tell: Tell) => {
    const { backend, base } = await ready(tell);
    // another backend has none of what was computed
    if (!data || data.backend !== backend) throw new CoreError('choose what is trained on first');
    return { base, ...data };
  };
  const runOf = (id: number): Run => {
    const found = runs.get(id);
    if (!found) throw new CoreError('this run is over: the backend changed, or it was thrown away');
    return found;
  };
  const configOf = (base: Ready, made: Data, ask: TrainAsk): RunConfig => ({
    ...base.run,
    ...ask,
    batch: Math.min(base.run.batch, made.training.length),
    warmup: Math.min(base.run.warmup, Math.floor(ask.steps / 4)),
  });
  const sourceOf = (base: Ready, made: Data, c: RunConfig): BatchSource => {
    const side = base.side / vaeFactor(base.configs.vae);
    const latent = [side, side, base.configs.vae.latent_channels] as const;
    return batchSource(c, base.schedule, made.training, latent, base.empty, c.steps);
  };
  const stepsOf = (base: Ready, backend: Backend, { method, settings }: Chosen): Steps => {
    const c = settings as unknown as RunConfig;
    const key = `${method.name} ${c.clip}`;
    let known = programs.get(key);
    if (!known) {
      known = createSteps({
        method,
        settings,
        backend,
        configs: { unet: base.configs.unet, text: base.configs.textEncoder },
        adam: { ...adamDefaults, weightDecay: c.weightDecay, decoupled: c.optimizer === 'adamw' },
        clip: c.clip,
        checkpointBlocks: false,
      });
      programs.set(key, known);
    }
    return known;
  };
  const put = (base: Ready, run: Run): Begun => {
    if (runs.size >= MOST_RUNS) throw new CoreError(`at most ${MOST_RUNS} runs at a time`);
    const id = ++last;
    runs.set(id, run);
    const modules = networks.flatMap((n) =>
      Object.entries(run.now.ranks[n]).map(([path, rank]) => {
        const [dOut, dIn] = base.places[n].get(path)!;
        return { path: moduleName(n, path), rank, dIn: dIn!, dOut };
      }),
    );
    return { id, settings: run.config, step: run.step, modules };
  };
  const fileOf = async (base: Ready, { chosen, now, config, step, tests }: Run) =>
    adapterFileOf(
      await unpadded(chosen, now.state, now.ranks),
      base.places,
      step,
      config,
      NO_WEIGHTS,
      base.hash,
      tests,
    );

  return {
    /** Reads and encodes what is trained on; runs before it are thrown away. */
    async trainData(
      tell: Tell,
      ask: DataAsk,
    ): Promise<{ readonly pairs: number; readonly shown: Data['shown']; readonly side: number }> {
      const { backend, base } = await ready(tell);
      const tokenizer = await readTokenizer(readFile);
      const made = await makeData(ask, base, tokenizer, backend, tell);
      runs.clear();
      programs.clear();
      draw = undefined;
      const { unet, text } = base.frozen;
      const configs = { unet: base.configs.unet, vae: base.configs.vae, text: base.configs.textEncoder };
      data = { backend, made, pipeline: { unet, text, vae: base.vae, configs, tokenizer, schedule: base.schedule } };
      return { pairs: made.training.length, shown: made.shown, side: base.side };
    },

    /** A run before its first step. @throws CoreError for a setting that does not fit */
    async trainBegin(tell: Tell, ask: TrainAsk): Promise<Begun> {
      const { backend, base, made } = await opened(tell);
      const config = configOf(base, made, ask);
      const chosen = chosenOf(config as never);
      const { state, ranks } = startState({ ...chosen, seed: config.seed }, base.places, backend);
      const now = { state, ranks, memories: {} };
      return put(base, { config, chosen, batches: sourceOf(base, made, config), now, step: 0, seconds: 0, tests: [] });
    },

    /** Another run that goes on from where one is, with other settings; its method stays. */
    async trainFork(tell: Tell, id: number, ask: Pick<TrainAsk, 'lambda' | 'testEvery'>): Promise<Begun> {
      const { backend, base, made } = await opened(tell);
      const from = runOf(id);
      const config = { ...from.config, ...ask };
      const state = evaluate(
        mapTree((x: Tensor) => mul(x, 1), from.now.state as never),
        backend,
      ) as never;
      return put(base, {
        ...from,
        config,
        chosen: chosenOf(config as never),
        batches: sourceOf(base, made, config),
        now: { ...from.now, state },
        tests: [...from.tests],
      });
    },

    /** The next update of a run. */
    async trainStep(tell: Tell, id: number): Promise<TrainRow> {
      const { backend, base } = await opened(tell);
      const run = runOf(id);
      const { config: c, chosen, batches } = run;
      const began = performance.now();
      const step = run.step + 1;
      if (step > c.steps) throw new CoreError(`the run has its ${c.steps} steps`);
      const steps = stepsOf(base, backend, chosen);
      const rates = ratesOf(c, step - 1, c.steps);
      const hyper = hyperOf(chosen.method, rates, c.seed, step, c.steps);
      const testing = chosen.method.growth?.due(c, step, c.steps) ?? false;
      const batch = batches.training(step - 1, testing);
      const parts = { ...chosen, seed: c.seed, places: base.places, programs: steps, frozen: base.frozen, backend };
      let result: { readonly loss: Tensor; readonly norm: Tensor };
      let tests: readonly Decided[] | undefined;
      if (testing) {
        const tested = await testedStep(parts, run.now, batch, batches.extra(step - 1), hyper, step, c.steps);
        const grown = await tested.decide();
        if (grown.padded) steps.trim();
        run.now = { state: grown.state, ranks: grown.ranks, memories: grown.memories };
        tests = grown.decisions;
        run.tests.push({ step, tests });
        result = tested;
      } else {
        const { state, ...rest } = steps.plain(run.now.state, base.frozen, batch[0]!, hyper);
        run.now = { ...run.now, state };
        result = rest;
      }
      run.step = step;
      const [loss, gradNorm] = await Promise.all([readScalar(result.loss), readScalar(result.norm)]);
      run.seconds += (performance.now() - began) / 1000;
      const row = { step, loss, lr: rates.unet, gradNorm, totalRank: totalRankOf(run.now.ranks), seconds: run.seconds };
      return tests ? { ...row, tests } : row;
    },

    /** The film of a shown report as `generate` draws it from the run's file, report i from the noise of seed + i. */
    async trainFilm(tell: Tell, id: number, report: number): Promise<Film> {
      const { backend, base, made, pipeline } = await opened(tell);
      const run = runOf(id);
      const shown = made.shown[report];
      if (!shown) throw new CoreError(`there is no report ${report}`);
      const file = await fileOf(base, run);
      const adapted = adaptedPipeline(pipeline, adaptersFromFile(file, base.places), backend);
      draw ??= createGenerator(backend, pipeline.configs);
      const all = pictureOptions(run.config, base.side, report + 1);
      tell('drawing a film');
      const [picture] = await draw(adapted, [shown.text], { ...all, seeds: all.seeds.slice(-1) });
      if (!shown.findings) return { step: run.step, picture: picture! };
      tell('reading it');
      const read = filmReader(base.side)(toGrey(picture!));
      return {
        step: run.step,
        picture: picture!,
        reading: sayReading(read),
        right: judgeFilm(shown.findings, read).whole,
      };
    },

    /** The regions the detectors read, by name: places of pixels. */
    async trainRegions(tell: Tell): Promise<readonly (readonly [string, readonly number[]])[]> {
      const { base } = await ready(tell);
      return [...filmRegions(base.side)];
    },

    /** The run's adapter as a safetensors file. */
    async trainAdapter(tell: Tell, id: number): Promise<Uint8Array> {
      const { base } = await opened(tell);
      const { tensors, metadata } = adapterContent(await fileOf(base, runOf(id)));
      const parts: Uint8Array[] = [];
      await streamSafetensors(tensors, metadata, async (bytes) => void parts.push(Uint8Array.from(bytes)));
      const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
      let at = 0;
      for (const part of parts) {
        out.set(part, at);
        at += part.length;
      }
      return out;
    },

    /** Throws a run away. */
    trainDrop(_: Tell, id: number): void {
      runs.delete(id);
    },
  };
}

/** The methods of this page need no frozen weight for their files. */
const NO_WEIGHTS = { parts: {} } as never;
