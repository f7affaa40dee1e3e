/**
 * npm run train: fine-tunes a text-to-image latent diffusion model with adapters that grow their own ranks.
 *
 *   npm run train                                    built-in phantoms on the shipped base
 *   npm run train -- --data films/ --base sd15/      your own files (see --help)
 *
 * Reads top to bottom: settings, model, pairs, adapters, the loop, the report.
 */
import path from 'node:path';
import { NonFiniteError, readScalar } from '../core/index.ts';
import { printable } from '../models/io/error.ts';
import { totalRankOf } from '../selora/methods/low-rank.ts';
import { type Io, parseArgs, print, runMain } from './cli/command.ts';
import { commandOf, quoted, trainCommand } from './cli/flags.ts';
import { onInterrupt } from './cli/signals.ts';
import { resolveStart } from './config/resolve.ts';
import { watchRun } from './lab/watch.ts';
import { makeContexts } from './model/contexts.ts';
import { loadBase } from './model/model.ts';
import { vaeFactor } from './model/programs.ts';
import { targetsOf } from './model/targets.ts';
import { adamDefaults } from './optimise/optimizer.ts';
import { ratesOf } from './optimise/rates.ts';
import {
  digestOf,
  followedKeeper,
  followedMetrics,
  followedPage,
  type Joined,
  printTraffic,
  saidOnce,
  spread,
  stayForWords,
  together,
} from './parallel/index.ts';
import { openMetrics } from './run/metrics.ts';
import { type PhaseClock, phaseClock } from './run/phases.ts';
import { stateTensors, unpadded } from './run/tensors.ts';
import { batchSource } from './step/batches.ts';
import { lookedAt } from './step/begin.ts';
import { type TestedStep, testedStep } from './step/growth.ts';
import { chosenOf } from './step/ranks.ts';
import { createSteps, type Frozen, hyperOf, type State } from './step/step.ts';
import { encodeData } from './trainer/encoded.ts';
import { type Final, finishRun } from './trainer/finish.ts';
import { keeper } from './trainer/keep.ts';
import { livePage } from './trainer/live.ts';
import { nonFiniteStep } from './trainer/non-finite.ts';
import { snapshots } from './trainer/snapshots.ts';
import { standingOf } from './trainer/standing.ts';
import { type Started, start } from './trainer/start.ts';
import { validator } from './trainer/validate.ts';
import { startProgress } from './words/progress.ts';

export async function main(args: readonly string[], io: Io): Promise<void> {
  const clock = phaseClock();
  const parallel = args.some((word) => word.startsWith('--data-parallel'));
  const read = (own: Io) => {
    const found = parseArgs<Record<string, unknown>>(trainCommand(own), args);
    resolveStart(found);
    return found;
  };
  const asked = parallel ? saidOnce(io, read) : read(io);
  if (!asked) return process.exitCode ? stayForWords() : undefined;
  const { dataParallel, ...given } = asked;
  const words = ['npm run train', ...(args.length > 0 ? ['--', ...args.map(quoted)] : [])].join(' ');
  if (dataParallel === undefined) return begin(given, words, clock, io);
  await together(io, (own, joined) => begin(given, words, clock, own, joined));
}

async function begin(
  given: Record<string, unknown>,
  words: string,
  clock: PhaseClock,
  io: Io,
  joined?: Joined,
): Promise<void> {
  const started = await start(given, clock, io, joined?.peers);
  if (!started) return;
  const { run, backend, config, origin, checkpoint } = started;
  const page = resolveStart(given).watch && (joined?.peers.leads ?? true) ? watchRun(run.path) : undefined;
  try {
    joined?.watch.tell(run.path);
    const { threads: _threads, ...settings } = config;
    await joined?.peers.agree({
      settings: JSON.stringify(settings),
      backend: backend.name,
      data: origin.data,
      base: origin.base,
      checkpoint: checkpoint ? checkpoint.info.step : 'none',
    });
    await train(started, run.resumed ? commandOf(config) : words, clock, io, joined);
  } catch (error) {
    await run.abandon();
    throw error;
  } finally {
    const left = await run.close();
    if (left !== undefined) io.stderr.write(`${printable(left, Number.POSITIVE_INFINITY)}\n`);
    await page?.end();
    await backend.close();
  }
}

async function train(
  started: Started,
  command: string,
  clock: PhaseClock,
  io: Io,
  { peers }: Partial<Joined> = {},
): Promise<void> {
  const { run, config: c, backend, base, data, side, steps, origin, initial, checkpoint } = started;
  const leads = peers?.leads ?? true;

  // model
  const model = await clock.time('load model', () => loadBase(base, backend, { weights: c.weights }));
  const { pipeline } = model;
  const frozen: Frozen = { unet: pipeline.unet, text: pipeline.text };

  // pairs, encoded once
  const { training, validation } = await encodeData(data, side, c, pipeline, backend, clock, io);

  // adapters, and the programs that train them
  const places = targetsOf(base, c);
  print(
    io,
    `adapters on ${places.unet.size} of ${model.places.unet.size} layers of the U-Net and ${places.text.size} of ${model.places.text.size} of the text encoder (--targets ${c.targets})`,
  );
  const chosen = chosenOf(c, initial);
  const own = createSteps({
    ...chosen,
    backend,
    configs: pipeline.configs,
    adam: { ...adamDefaults, weightDecay: c.weightDecay, decoupled: c.optimizer === 'adamw' },
    clip: c.clip,
    checkpointBlocks: c.checkpointBlocks,
    ...(c.checkFinite ? { check: 'finite' } : {}),
  });
  const several = peers && peers.size > 1 ? peers : undefined;
  const programs = several ? { ...own, ...spread(own, several, backend) } : own;

  // batches of every step; texts are encoded once where no adapter is on their encoder
  const empty = pipeline.tokenizer.encode('', c.captionChunks).ids;
  const captions = [empty, ...[...training, ...validation].map(({ ids }) => ids)];
  const fixed = () => makeContexts(backend, pipeline.text, pipeline.configs.text, captions, c.captionChunks);
  const contexts = places.text.size === 0 ? await clock.time('encode texts', fixed) : undefined;
  const latents = side / vaeFactor(pipeline.configs.vae);
  const latent = [latents, latents, pipeline.configs.vae.latent_channels] as const;
  const batches = batchSource(c, pipeline.schedule, training, latent, empty, steps, contexts, several !== undefined);
  const measure = validator(programs, frozen, batches, validation, several);
  const validate = (state: State) => clock.time('validation', () => measure(state));

  // where the run stands
  const { begin } = chosen.method;
  const looked =
    checkpoint || initial || !begin ? [] : Array.from({ length: begin.batches(c) }, (_, i) => batches.training(i));
  const parameters = { configs: pipeline.configs, checkpointBlocks: c.checkpointBlocks, backend };
  const kept =
    looked.length === 0
      ? undefined
      : await clock.time('gradients of the start', () =>
          lookedAt({ ...chosen, seed: c.seed }, parameters, places, frozen, looked.flat()),
        );
  let now = standingOf(checkpoint, chosen, c.seed, places, backend, kept);
  const metrics = leads ? await openMetrics(run, now.progress.step, checkpoint?.info.metrics) : followedMetrics;
  const keep = leads ? keeper(run, c, chosen, places, base, origin, metrics, now.progress.step) : followedKeeper;
  const save = () =>
    clock.time('checkpoints', async () => {
      // processes of unlike machines would part from each other unseen
      if (several) await several.agree({ state: digestOf(await stateTensors(now.state)) });
      await keep.save(now);
    });
  if (!now.progress.baseline && validation.length > 0) {
    // what it begins from (--init-adapter, a start that moves) is not the untouched base
    const moved = initial ? `with ${c.initAdapter}` : begin?.moves && `with the start of ${chosen.method.name}`;
    const untouched = moved ? standingOf(undefined, chosenOf(c), c.seed, places, backend).state : now.state;
    const baseline = await validate(untouched);
    if (!Number.isFinite(baseline.loss))
      throw new RangeError(`--base ${c.base}: its loss on the validation pairs is ${baseline.loss}`);
    now = { ...now, progress: { ...now.progress, baseline } };
    const [own, exchanged] = [baseline.loss.toFixed(5), baseline.shuffled.toFixed(5)];
    print(io, `untouched base on the validation grid: ${own} (reports exchanged: ${exchanged})`);
    if (moved) print(io, `${moved}: ${(await validate(now.state)).loss.toFixed(5)}`);
  }
  const sources = { run, config: c, model, backend, data, encoded: { validation }, clock, command };
  const page = leads ? livePage(sources, places, () => now.progress, steps) : followedPage;
  const snapshot = snapshots({ run, config: c, model, backend, held: [...data.test, ...data.validation], side });

  // the loop
  const interrupt = onInterrupt();
  peers?.askBy(() => interrupt.requested);
  const stopping = () => several?.stopping ?? interrupt.requested;
  const display = startProgress(io.stderr, steps);
  const [began, before, first] = [performance.now(), now.progress.seconds, now.progress.step];
  const parts = { ...chosen, seed: c.seed, places, programs, frozen, backend };
  try {
    for (let step = first + 1; step <= steps && !stopping(); step++) {
      const rates = ratesOf(c, step - 1, steps);
      const hyper = hyperOf(chosen.method, rates, c.seed, step, steps);
      const testing = chosen.method.growth?.due(c, step, steps) ?? false;
      const batch = clock.sync('batches', () => batches.training(step - 1, testing));
      const extra = testing ? clock.sync('batches', () => batches.extra(step - 1)) : [];
      const { ranks } = now.progress;
      const told = async (error: unknown): Promise<never> => {
        if (!(error instanceof NonFiniteError)) throw error;
        const inputs = { programs, state: now.state, frozen, batches: [...batch, ...extra], backend };
        throw await nonFiniteStep(step, error, inputs);
      };
      const taken = clock.time(testing ? 'steps with expansion test' : 'steps', async () => {
        const r: Omit<TestedStep, 'decide'> & Partial<TestedStep> = testing
          ? await testedStep(parts, { ...now, ranks }, batch, extra, hyper, step, steps)
          : c.accumulate > 1
            ? await programs.accumulated(now.state, frozen, batch, hyper)
            : programs.plain(now.state, frozen, batch[0]!, hyper);
        const [value, gradNorm] = await Promise.all([readScalar(r.loss), readScalar(r.norm)]);
        return { ...r, value, gradNorm };
      });
      const result = await taken.catch(told);
      if (!Number.isFinite(result.value)) await keep.refuse(step, result.value, result.state);
      const grown = result.decide && (await clock.time('expansion decisions', result.decide).catch(told));
      if (grown?.padded) programs.trim();
      const after = grown ?? { state: result.state, ranks, memories: now.memories };
      const seconds = before + (performance.now() - began) / 1000;
      const progress = { ...now.progress, step, ranks: after.ranks, memories: after.memories, seconds };
      now = { ...now, state: after.state, memories: after.memories, progress };

      const totalRank = totalRankOf(after.ranks);
      const row: Record<string, unknown> & { step: number } = { step, loss: result.value, lr: rates.unet, totalRank };
      // NaN and ∞ are no JSON; the loss of the next step tells what came of them
      if (Number.isFinite(result.gradNorm)) row.gradNorm = result.gradNorm;
      if (grown) row.tests = grown.decisions;
      if (grown?.carried)
        row.asked = batches.tested(step - 1).map((sample, i) => ({ ...sample, part: grown.carried![i]! }));
      const last = step === steps;
      if (validation.length > 0 && (step % c.validateEvery === 0 || last)) {
        const validated = await validate(now.state);
        row.validation = validated;
        now = await keep.offer(now, validated, row);
      }
      await metrics.write({ ...row, seconds, memory: process.memoryUsage.rss() });
      if (row.validation && !last) await page.offer();
      if (step % c.saveEvery === 0 || last) await save();
      if (leads && c.sampleEvery !== null && step % c.sampleEvery === 0 && !last) {
        const adapters = await unpadded(chosen, now.state, after.ranks);
        await clock.time('sample pictures', () => snapshot(step, adapters));
      }
      const stepsPerSecond = (step - first) / ((performance.now() - began) / 1000);
      display.update({ step, steps, loss: result.value, stepsPerSecond, totalRank, memory: process.memoryUsage.rss() });
    }
    display.stop();
    if (several) printTraffic(io, several, now.progress.step - first, (performance.now() - began) / 1000);
    if (stopping() && now.progress.step < steps) {
      await save();
      await page.write();
      print(io, `report so far ${path.join(run.path, 'report.html')}`);
      print(io, `stopped after step ${now.progress.step} and saved; go on with: npm run train -- --resume ${run.path}`);
      process.exitCode = interrupt.exitCode || 1;
      return await metrics.close();
    }
  } finally {
    display.stop();
    interrupt.dispose();
  }

  // pictures, detectors, report
  if (!leads) return;
  const adapters = await unpadded(chosen, now.state, now.progress.ranks);
  const end: Final = { name: 'last', step: now.progress.step, adapters };
  const final: Final = c.final === 'best' && now.best ? { name: 'best', ...now.best } : end;
  const other = final.step < end.step ? { other: end } : {};
  const told = { ...sources, metrics: metrics.rows(), progress: now.progress };
  await finishRun({ ...told, final, ...other, steps, side, io });
  await metrics.close();
}
await runMain(import.meta, main, { longRun: true });
