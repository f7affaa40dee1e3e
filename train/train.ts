/**
 * npm run train: fine-tunes a text-to-image latent diffusion model with adapters that grow their own ranks.
 *
 *   npm run train                                    built-in phantoms on the shipped base
 *   npm run train -- --data films/ --base sd15/      your own files (see --help)
 *
 * Reads top to bottom: settings, model, pairs, adapters, the loop, the report.
 */
import path from 'node:path';
import { z } from 'zod';
import { read, readScalar, tensor } from '../core/index.ts';
import { capacityOf } from '../models/clip/tokenizer.ts';
import { writeAdapter } from '../models/io/adapter-write.ts';
import { type Io, parseArgs, print, runMain } from './cli/command.ts';
import { commandOf, trainCommand } from './cli/flags.ts';
import { onInterrupt } from './cli/signals.ts';
import { makeContexts } from './model/contexts.ts';
import { encodePairs } from './model/encode.ts';
import { loadBase } from './model/model.ts';
import { vaeFactor } from './model/programs.ts';
import { targetsOf } from './model/targets.ts';
import { adamDefaults } from './optimise/optimizer.ts';
import { ratesOf } from './optimise/rates.ts';
import { printable } from './report/printable.ts';
import { saveCheckpoint } from './run/checkpoint.ts';
import { openMetrics } from './run/metrics.ts';
import { type PhaseClock, phaseClock } from './run/phases.ts';
import { bestFrom, bestTensors, ranksSchema, stateFrom, stateTensors, unpadded } from './run/tensors.ts';
import { batchSource } from './step/batches.ts';
import { type Memories, memoriesSchema, type TestedStep, testedStep } from './step/growth.ts';
import { chosenOf, startState, totalRankOf } from './step/ranks.ts';
import { createSteps, type Frozen, paramsOf, type State } from './step/step.ts';
import { adapterFileOf } from './trainer/adapter-file.ts';
import { type Final, finishRun } from './trainer/finish.ts';
import { snapshots } from './trainer/snapshots.ts';
import { type Started, start } from './trainer/start.ts';
import { startProgress } from './words/progress.ts';

const stepNumber = z.int().min(0);
const progressSchema = z.object({
  step: stepNumber,
  ranks: ranksSchema,
  /** what the method remembers of its tests, by module; checked by the method */
  memories: z.record(z.string(), z.unknown()).default({}),
  best: z.object({ step: stepNumber, loss: z.number() }).nullable(),
  /** frozen base on the validation grid: true and shuffled reports */
  baseline: z.object({ loss: z.number(), shuffled: z.number() }).nullable(),
  seconds: z.number().min(0),
});
/** What the host remembers between steps; with the state's tensors it is the whole run. */
export type Progress = z.output<typeof progressSchema>;

export async function main(args: readonly string[], io: Io): Promise<void> {
  const clock = phaseClock();
  const started = await start(parseArgs<Record<string, unknown>>(trainCommand(io), args), clock, io);
  if (!started) return;
  const { run, backend } = started;
  try {
    const typed = `npm run train -- ${args.join(' ')}`.trim();
    await train(started, run.resumed ? commandOf(started.config) : typed, clock, io);
  } catch (error) {
    await run.abandon();
    throw error;
  } finally {
    const left = await run.close();
    if (left !== undefined) io.stderr.write(`${printable(left)}\n`);
    await backend.close();
  }
}

async function train(started: Started, command: string, clock: PhaseClock, io: Io): Promise<void> {
  const { run, config: c, backend, base, data, side, steps, origin, checkpoint } = started;

  // model
  const model = await clock.time('load model', () => loadBase(base, backend, { weights: c.weights }));
  const { pipeline } = model;

  // pairs, encoded once
  const factor = vaeFactor(pipeline.configs.vae);
  let told = performance.now();
  const encode = (pairs: typeof data.train) =>
    encodePairs(backend, pipeline.vae, pipeline.configs.vae, pipeline.tokenizer, pairs, side, {
      captionChunks: c.captionChunks,
      onProgress: (done, of) => {
        if (performance.now() - told < 20_000) return;
        told = performance.now();
        print(io, `… ${done} of ${of} pictures encoded`);
      },
    });
  const training = await clock.time('encode pictures', () => encode(data.train));
  const validation = await clock.time('encode pictures', () => encode(data.validation.slice(0, c.validationPairs)));
  print(
    io,
    `${data.source}: ${data.train.length} training, ${data.validation.length} validation, ${data.test.length} test pairs; ${training.filter((p) => p.cut).length} training captions cut at ${capacityOf(pipeline.tokenizer.config, c.captionChunks)} ids`,
  );

  // adapters
  const linears = targetsOf(model.base, c);
  print(
    io,
    `adapters on ${linears.unet.size} of ${model.linears.unet.size} U-Net and ${linears.text.size} of ${model.linears.text.size} text-encoder linears (--targets ${c.targets})`,
  );

  const chosen = chosenOf(c);
  const programs = createSteps({
    ...chosen,
    backend,
    configs: pipeline.configs,
    adam: { ...adamDefaults, weightDecay: c.weightDecay, decoupled: c.optimizer === 'adamw' },
    clip: c.clip,
    checkpointBlocks: c.checkpointBlocks,
  });
  const frozen: Frozen = { unet: pipeline.unet, text: pipeline.text };
  const latent = [side / factor, side / factor, pipeline.configs.vae.latent_channels] as const;
  const empty = pipeline.tokenizer.encode('', c.captionChunks).ids;
  const captions = [empty, ...[...training, ...validation].map(({ ids }) => ids)];
  const contexts =
    linears.text.size === 0
      ? await clock.time('encode texts', () =>
          makeContexts(backend, pipeline.text, pipeline.configs.text, captions, c.captionChunks),
        )
      : undefined;
  const batches = batchSource(c, pipeline.schedule, training, latent, empty, steps, contexts);
  const grid = { plain: batches.validation(validation, false), shuffled: batches.validation(validation, true) };
  const measure = async (state: State, which: keyof typeof grid): Promise<number> => {
    let [sum, n] = [0, 0];
    for (const b of grid[which]) {
      const losses = await read(programs.losses(paramsOf(state), frozen, b));
      for (const l of losses) sum += l;
      n += losses.length;
    }
    return n === 0 ? Number.NaN : sum / n;
  };

  // where the run stands
  const saved = checkpoint && { ...checkpoint, progress: progressSchema.parse(checkpoint.info) };
  let { state, ranks } = saved
    ? { state: stateFrom(chosen, saved.tensors, saved.progress.ranks, linears), ranks: saved.progress.ranks }
    : startState({ ...chosen, seed: c.seed }, linears, backend);
  let progress: Progress = saved?.progress ?? {
    step: 0,
    ranks,
    memories: {},
    best: null,
    baseline: null,
    seconds: 0,
  };
  let memories: Memories = memoriesSchema(chosen.method).parse(progress.memories);
  let best = progress.best && { ...progress.best, adapters: bestFrom(chosen, saved!.tensors, linears) };
  const metrics = await openMetrics(run, progress.step, saved?.info.metrics);
  if (!progress.baseline && validation.length > 0) {
    const baseline = await clock.time('validation', async () => ({
      loss: await measure(state, 'plain'),
      shuffled: await measure(state, 'shuffled'),
    }));
    if (!Number.isFinite(baseline.loss))
      throw new RangeError(`--base ${c.base}: its loss on the validation pairs is ${baseline.loss}`);
    progress = { ...progress, baseline };
    print(
      io,
      `untouched base on the validation grid: ${baseline.loss.toFixed(5)} (reports exchanged: ${baseline.shuffled.toFixed(5)})`,
    );
  }
  let savedAt = progress.step;
  const save = () =>
    clock.time('checkpoints', async () => {
      const info = { ...progress, ...origin, metrics: await metrics.sync() };
      const tensors = new Map([...(await stateTensors(state)), ...(best ? bestTensors(best.adapters) : [])]);
      await saveCheckpoint(run, tensors, info as never);
      savedAt = progress.step;
    });

  const snapshot = snapshots({ run, config: c, model, backend, held: [...data.test, ...data.validation], side });

  // the loop
  const interrupt = onInterrupt();
  const display = startProgress(io.stderr, steps);
  const [began, before] = [performance.now(), progress.seconds];
  const first = progress.step;
  const parts = { ...chosen, seed: c.seed, places: linears, programs, frozen, backend };
  for (let step = first; step < steps && !interrupt.requested; step++) {
    const rates = ratesOf(c, step, steps);
    const hyper = { unet: tensor(rates.unet), text: tensor(rates.text) };
    const testing = chosen.method.growth?.due(c, step + 1, steps) ?? false;
    const batch = clock.sync('batches', () => batches.training(step, testing));
    const extra = testing ? clock.sync('batches', () => batches.extra(step)) : [];
    const label = testing ? 'steps with expansion test' : 'steps';
    const result = await clock.time(label, async () => {
      const r: Omit<TestedStep, 'decide'> & Partial<TestedStep> = testing
        ? testedStep(parts, { state, ranks, memories }, batch, extra, hyper, step + 1)
        : c.accumulate > 1
          ? programs.accumulated(state, frozen, batch, hyper)
          : programs.plain(state, frozen, batch[0]!, hyper);
      return { ...r, value: await readScalar(r.loss) };
    });
    state = result.state;
    if (!Number.isFinite(result.value))
      throw new RangeError(
        `step ${step + 1}: the loss is ${result.value}; lower --lr or use --clip (last checkpoint: ${savedAt === 0 ? 'none' : `step ${savedAt}`})`,
      );
    const row: Record<string, unknown> & { step: number } = {
      step: step + 1,
      loss: result.value,
      lr: rates.unet,
      totalRank: totalRankOf(ranks),
    };
    if (result.decide) {
      const grown = await clock.time('expansion decisions', result.decide);
      ({ state, ranks, memories } = grown);
      if (grown.padded) programs.trim();
      row.tests = grown.decisions;
      row.totalRank = totalRankOf(ranks);
    }
    progress = { ...progress, step: step + 1, ranks, memories, seconds: before + (performance.now() - began) / 1000 };
    const last = step + 1 === steps;
    if (validation.length > 0 && ((step + 1) % c.validateEvery === 0 || last)) {
      const [loss, shuffled] = await clock.time(
        'validation',
        async () => [await measure(state, 'plain'), await measure(state, 'shuffled')] as const,
      );
      row.validation = { loss, shuffled };
      if (Number.isFinite(loss) && !(progress.best && loss >= progress.best.loss)) {
        progress = { ...progress, best: { step: step + 1, loss } };
        best = { step: step + 1, loss, adapters: await unpadded(chosen, state, ranks) };
        const file = adapterFileOf(best.adapters, linears, step + 1, c, origin.base, [...metrics.rows(), row]);
        await writeAdapter(path.join(run.path, 'best.safetensors'), file);
      }
    }
    await metrics.write({ ...row, seconds: progress.seconds, memory: process.memoryUsage.rss() });
    if ((step + 1) % c.saveEvery === 0 || last) await save();
    if (c.sampleEvery !== null && (step + 1) % c.sampleEvery === 0 && !last) {
      const adapters = await unpadded(chosen, state, ranks);
      await clock.time('sample pictures', () => snapshot(step + 1, adapters));
    }
    display.update({
      step: step + 1,
      steps,
      loss: result.value,
      stepsPerSecond: (step + 1 - first) / ((performance.now() - began) / 1000),
      totalRank: totalRankOf(ranks),
      memory: process.memoryUsage.rss(),
    });
  }
  display.stop();
  if (interrupt.requested && progress.step < steps) {
    await save();
    await metrics.close();
    print(io, `stopped after step ${progress.step} and saved; go on with: npm run train -- --resume ${run.path}`);
    process.exitCode = interrupt.exitCode;
    interrupt.dispose();
    return;
  }
  interrupt.dispose();

  // pictures, detectors, report
  const last: Final = { name: 'last', step: progress.step, adapters: await unpadded(chosen, state, ranks) };
  const final: Final = c.final === 'best' && best ? { name: 'best', ...best } : last;
  await finishRun({
    run,
    config: c,
    model,
    backend,
    data,
    encoded: { validation },
    final,
    ...(final.step < last.step ? { other: last } : {}),
    progress,
    metrics: metrics.rows(),
    clock,
    steps,
    side,
    io,
    command,
  });
  await metrics.close();
}
await runMain(import.meta, main, { longRun: true });
