/** Training steps with expansion tests leave memory as it was, to the byte. A leak shows at the second look. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { webgpuBackend } from '../../core/backends/webgpu/index.ts';
import { type Backend, evaluate, place, read, readScalar, tensor } from '../../core/index.ts';
import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, unetSchema } from '../../models/config.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { init } from '../../nn/index.ts';
import { type Adapter, hostKey, initAdapters } from '../../selora/adapter.ts';
import { candidate } from '../../selora/expand.ts';
import { scoresOf } from '../../selora/fisher.ts';
import { lowRank } from '../../selora/methods/low-rank.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { selora } from '../../selora/methods/selora.ts';
import type { Trial } from '../../selora/trial.ts';
import { adamDefaults } from '../../train/optimise/optimizer.ts';
import { slotOf } from '../../train/step/ranks.ts';
import { type Batch, createSteps, mapModules, type PerModule, paramsOf, type State } from '../../train/step/step.ts';
import { casesOf, patience } from '../support/drivers.ts';
import { rng, values } from '../support/gradcheck.ts';
import { longRows } from '../support/long.ts';
import { TINY_CONFIGS } from '../support/tiny-base.ts';

const configs = {
  unet: parseConfig(unetSchema, TINY_CONFIGS.unet, 'unet'),
  text: parseConfig(textEncoderSchema, TINY_CONFIGS.textEncoder, 'text'),
};
const STEPS = casesOf('memory');
const TEST_EVERY = 10;
/** How often memory is looked at: at steps with and without a test behind them. */
const LOOK_EVERY = 25;
const CAPACITY = 4;
const SIDE = 4;
const GAIN = { a: 0 };

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
/** All dead tensors found and their storage given back. */
async function settle(): Promise<void> {
  // finalizers run when the loop is idle, on a busy machine not at the first opportunity
  for (let i = 0; i < 6; i++) {
    collect();
    await new Promise((done) => setTimeout(done, i));
  }
}

const random = rng(8);
const normal = (...shape: number[]) => tensor(Float32Array.from(values({ shape }, random)), shape);
const batch = (): Batch => ({
  x: normal(2, SIDE, SIDE, 4),
  t: tensor(Int32Array.of(random() * 1000, random() * 1000)),
  ids: tensor(
    Int32Array.from({ length: 2 * 77 }, () => random() * configs.text.vocab_size),
    [2, 77],
  ),
  target: normal(2, SIDE, SIDE, 4),
  weight: tensor(Float32Array.of(1, 1)),
});

const open = {
  wasm: async () => wasmBackend({ threads: 1 }) as Backend,
  webgpu: async () => (await webgpuBackend()) as Backend,
};
/** Trains `count` steps and looks at memory now and then. `after` each step something may be kept that should not be. */
async function watched(backend: Backend, count: number, lookEvery: number, after: () => void = () => undefined) {
  const base = place(
    evaluate({ unet: init(unetSpec(configs.unet), 1), text: init(textEncoderSpec(configs.text), 2) }, backend),
    backend,
  );
  const steps = createSteps({
    backend,
    configs,
    method: selora,
    settings: settingsOf(selora),
    adam: adamDefaults,
    clip: 1,
    checkpointBlocks: false,
  });
  const attention = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1';
  const first = initAdapters(
    hostKey(3),
    new Map([
      [`${attention}.to_q`, [4, 4]],
      [`${attention}.to_v`, [4, 4]],
    ]),
    1,
    GAIN,
  );
  const text = initAdapters(hostKey(4), new Map([['text_model.encoder.layers.0.mlp.fc1', [16, 8]]]), 1, GAIN);
  const slots = mapModules((a) => slotOf(a, lowRank.fields([1, 1], 1), CAPACITY), { unet: first, text });
  let state: State<Adapter> = evaluate(slots, backend);
  const hyper = { unet: tensor([1e-3], []), text: tensor([1e-3], []) };
  const ranks = new Map<string, number>();
  let grown = 0;

  /** K and the free slot of each module; a module that may not grow points nowhere */
  const pointed = (step: number, grows: (path: string) => boolean): PerModule<Trial> => {
    return mapModules(({ A }, path): Trial => {
      const { K } = candidate(hostKey(5), path, step, A.shape[0]!, GAIN);
      const free = ranks.get(path) ?? 1;
      const slot = Float32Array.from({ length: CAPACITY }, (_, i) => (i === free && grows(path) ? 1 : 0));
      return { K, slot: tensor(slot, [1, CAPACITY]) };
    }, paramsOf(state));
  };
  const seen: { readonly step: number; readonly liveBytes: number; readonly storages: number }[] = [];
  let losses = 0;
  // a function of its own: what a loop's frame still points to after a step is an accident of the engine's compilers
  const take = async (step: number): Promise<void> => {
    if (step % TEST_EVERY !== 0) {
      const done = steps.plain(state, base, batch(), hyper);
      state = done.state;
      if (step % 10 === 0) losses += await readScalar(done.loss);
    } else {
      const done = steps.tested(
        state,
        base,
        batch(),
        hyper,
        pointed(step, () => true),
      );
      state = done.state;
      const wanted = new Set<string>();
      for (const network of ['unet', 'text'] as const)
        for (const [path, { a, b }] of Object.entries(done.sums[network])) {
          const rank = ranks.get(path) ?? 1;
          expect(scoresOf(await read(a), await read(b), rank).fiNew).toBeGreaterThan(0);
          if (rank < CAPACITY - 1 && step % (3 * TEST_EVERY) === 0) wanted.add(path);
        }
      state = steps.install(
        state,
        pointed(step, (path) => wanted.has(path)),
      );
      for (const path of wanted) ranks.set(path, (ranks.get(path) ?? 1) + 1);
      grown += wanted.size;
    }
  };
  for (let step = 1; step <= count; step++) {
    await take(step);
    after();
    if (step % lookEvery === 0) {
      await settle();
      const { liveBytes, storages } = backend.memory();
      seen.push({ step, liveBytes, storages });
    }
  }
  const told = seen.map(({ liveBytes, storages }) => `${liveBytes} bytes in ${storages}`);
  return { seen: told, bytes: seen[0]!.liveBytes, losses, grown };
}

describe.each(longRows(Object.entries(open), ([name]) => name === 'wasm'))('%s', (name, start) => {
  test(`${STEPS} steps with ${STEPS / TEST_EVERY} expansion tests`, {
    timeout: patience('memory', 1_800_000),
  }, async () => {
    const backend = await start();
    const { seen, bytes, losses, grown } = await watched(backend, STEPS, LOOK_EVERY);
    await backend.close();
    expect(seen.length).toBeGreaterThanOrEqual(6);
    expect(Number.isFinite(losses)).toBe(true);
    expect(grown).toBe(3 * 2);
    expect(bytes).toBeGreaterThan(10_000);
    expect(seen).toEqual(seen.map(() => seen[1]));
  });
  // once is enough: what is planted and what is counted are the same on all backends
  if (name !== 'wasm') return;
  test('one value kept at each step would be found', { timeout: 120_000 }, async () => {
    const backend = await start();
    const kept: unknown[] = [];
    const { seen } = await watched(backend, 12, 4, () => kept.push(place(tensor([kept.length]), backend)));
    await backend.close();
    expect(new Set(seen).size).toBe(seen.length);
  });
});
