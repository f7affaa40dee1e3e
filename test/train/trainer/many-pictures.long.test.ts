/** What a run holds does not grow with its pictures, but for what it keeps of each: latents and ids. */
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeAll, expect, test } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { type Backend, readScalar } from '../../../core/index.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { type Encoded, encodePairs } from '../../../train/model/encode.ts';
import { loadPipeline, openBaseAt } from '../../../train/model/model.ts';
import { targetsOf } from '../../../train/model/targets.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { ratesOf } from '../../../train/optimise/rates.ts';
import { batchSource } from '../../../train/step/batches.ts';
import { startState } from '../../../train/step/ranks.ts';
import { createSteps, hyperOf } from '../../../train/step/step.ts';
import { findData, type RunData } from '../../../train/trainer/pairs.ts';
import { writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/scratch.ts';

const SIDE = 16;
const STEPS = 3;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
/** Bytes of this process's heap and of its arrays, without what is dead. */
async function held(): Promise<{ readonly heap: number; readonly arrays: number }> {
  for (let i = 0; i < 6; i++) {
    collect();
    await new Promise((done) => setTimeout(done, i));
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return { heap: heapUsed, arrays: arrayBuffers };
}

let base: string;
beforeAll(async () => {
  base = join(scratch, 'base');
  await writeCalmBase(base);
});

/** A run of some steps on so many phantoms: what its pictures leave, and the backend's bytes. */
async function runOn(pairs: number) {
  const c = resolveConfig({ base, pairs, resolution: SIDE, batch: 8, targets: '**.to_q', seed: 3 });
  const backend = wasmBackend({ threads: 1 }) as Backend;
  const opened = await openBaseAt(base);
  const { pipeline } = await loadPipeline(base, backend);
  const { configs, tokenizer, vae } = pipeline;
  const before = await held();
  const data: RunData = (await findData(c)).at(SIDE);
  const encoded: readonly Encoded[] = await encodePairs(backend, vae, configs.vae, tokenizer, data.train, SIDE);
  const after = await held();

  const places = targetsOf(opened, c);
  const chosen = { method: selora, settings: settingsOf(selora) };
  const frozen = { unet: pipeline.unet, text: pipeline.text };
  const steps = createSteps({ ...chosen, backend, configs, adam: adamDefaults, clip: 1, checkpointBlocks: false });
  const along = Math.round(Math.sqrt(encoded[0]!.mean.length / configs.vae.latent_channels));
  const latent = [along, along, configs.vae.latent_channels] as const;
  const source = batchSource(c, pipeline.schedule, encoded, latent, tokenizer.encode('').ids, STEPS);
  let { state } = startState({ ...chosen, seed: c.seed }, places, backend);
  for (let i = 0; i < STEPS; i++) {
    const hyper = hyperOf(selora as never, ratesOf(c, i, STEPS), c.seed, i + 1, STEPS);
    const done = steps.plain(state, frozen, source.training(i)[0]!, hyper);
    state = done.state;
    expect(Number.isFinite(await readScalar(done.loss))).toBe(true);
  }
  const { peakBytes } = backend.memory();
  await held();
  const { liveBytes } = backend.memory();
  const latents = encoded.reduce((n, e) => n + e.mean.byteLength + e.std.byteLength, 0);
  const kept = latents + encoded.reduce((n, e) => n + e.ids.byteLength, 0);
  // the pairs are held to here, as a run holds them to its end
  const n = data.train.length;
  await backend.close();
  return {
    n,
    kept,
    heap: after.heap - before.heap,
    arrays: after.arrays - before.arrays,
    latents,
    liveBytes,
    peakBytes,
  };
}

test('twenty and eight hundred pictures: the same on the backend, and latents and ids beside it', async () => {
  await runOn(20);
  const few = await runOn(20);
  const many = await runOn(1000);
  expect([few.n, many.n]).toEqual([16, 800]);
  const said = JSON.stringify({ few, many });
  expect(many.liveBytes, said).toBe(few.liveBytes);
  // latents that were read may wait there for the collector, pictures not
  expect(many.peakBytes - few.peakBytes, said).toBeLessThanOrEqual(many.latents);
  // nothing of the pictures themselves: a film of 16 × 16 alone is a kilobyte
  expect((many.arrays - few.arrays) / (many.kept - few.kept), said).toBeGreaterThan(0.95);
  expect((many.arrays - few.arrays) / (many.kept - few.kept), said).toBeLessThan(1.05);
  // texts and the objects around them
  expect((many.heap - few.heap) / (many.n - few.n), said).toBeLessThan(4096);
}, 120_000);
