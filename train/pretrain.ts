/**
 * npm run pretrain: makes the small base model from nothing: autoencoder, text warm start, U-Net, the last until its
 * samples put single shapes where their captions say, and then on scenes at all noise levels. Everything is saved as it
 * goes: run it again to go on where it stopped.
 *
 *   npm run pretrain                             # all stages, written to runs/small-base when the gate is passed
 *   npm run pretrain -- --out /tmp/base          # somewhere else
 *   npm run pretrain -- --threads 1 --work .cache/pretrain
 */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Backend, openBackend } from '../core/index.ts';
import type { TextEncoder } from '../models/clip/text-encoder.ts';
import type { Tokenizer } from '../models/clip/tokenizer.ts';
import { vaeSchema } from '../models/config.ts';
import { writeBase } from '../models/io/base-write.ts';
import { readTokenizer } from '../models/io/tokenizer-files.ts';
import { toCheckpoint } from '../models/spec.ts';
import type { UNet } from '../models/unet/index.ts';
import type { Vae } from '../models/vae/index.ts';
import { command, type Io, parseArgs, print, runMain } from './cli/command.ts';
import { sceneAt } from './data/made/scenes.ts';
import { readShape, scoreShapes, shapeAt } from './data/made/shapes.ts';
import { toGrey } from './data/pictures/grey.ts';
import { contactSheet } from './data/pictures/image-write.ts';
import { createGenerator, seedsFrom } from './model/sample.ts';
import { LATENT, PICTURE, SEED, schedulerConfig, textConfig, unetConfig, vaeConfig } from './pretrain/config.ts';
import { textParsed, warmStartText } from './pretrain/text-encoder.ts';
import { type Denoiser, encodeCaptions, type Latents, schedule, trainPhase, unetParsed } from './pretrain/unet.ts';
import { encodeAll, trainVae } from './pretrain/vae.ts';

const EXAMPLES = ['', '--out my-base', '--until vae --vae-steps 1000'];

const program = (io: Io) =>
  command(
    'pretrain',
    'Makes the small base model: autoencoder, text encoder and U-Net, from captioned shapes and textures.',
    EXAMPLES,
    io,
  )
    .option('--out <dir>', 'where the finished base goes (diffusers layout, a new folder)', 'runs/small-base')
    .option('--work <dir>', 'states of unfinished stages', '.cache/pretrain')
    .option('--tokenizer <dir>', 'vocab.json and merges.txt of SD 1.5', 'models/small-base/tokenizer')
    .option('--backend <name>', 'wasm, webgpu, cpu', 'wasm')
    .option('--threads <n>', 'threads of the wasm backend', Number)
    .option('--vae-steps <n>', 'autoencoder steps of 8 crops', Number, 4600)
    .option('--text-steps <n>', 'warm-start steps of 48 captions', Number, 2500)
    .option('--pictures <n>', 'captioned shapes for the U-Net', Number, 5120)
    .option('--scenes <n>', 'captioned scenes for phase 3, beside as many shapes', Number, 2560)
    .option('--phase1-steps <n>', 'U-Net steps of 16, timesteps mostly 600…999', Number, 2000)
    .option('--phase2-steps <n>', 'U-Net steps of 16 at most, timesteps mostly 930…999', Number, 3000)
    .option('--phase3-steps <n>', 'U-Net steps of 16 on shapes and scenes, timesteps mostly uniform', Number, 4000)
    .option('--until <stage>', 'stop after vae, text, phase1, phase2 or phase3');

type Options = {
  out: string;
  work: string;
  tokenizer: string;
  backend: 'wasm' | 'webgpu' | 'cpu';
  threads?: number;
  vaeSteps: number;
  textSteps: number;
  pictures: number;
  scenes: number;
  phase1Steps: number;
  phase2Steps: number;
  phase3Steps: number;
  until?: string;
};

/** Samples of held-out single-shape captions, read back by the detector: shares of x, y, size, brightness right. */
async function gate(
  backend: Backend,
  p: Denoiser,
  vae: Vae,
  scale: number,
  tokenizer: Tokenizer,
  count: number,
  file: string,
) {
  const configs = { unet: unetParsed, vae: vaeSchema.parse({ ...vaeConfig, scaling_factor: scale }), text: textParsed };
  const generate = createGenerator(backend, configs);
  const told = Array.from({ length: count }, (_, i) => shapeAt(SEED, 'held-out', i, 16, 'single-on-plain'));
  const pictures = await generate(
    { ...p, vae, configs, tokenizer, schedule },
    told.map((s) => s.caption),
    {
      steps: 20,
      guidance: 3,
      sampler: 'ddim',
      seeds: seedsFrom(SEED, count),
      height: PICTURE,
      width: PICTURE,
      batch: 16,
    },
  );
  const pairs = pictures.map((x, i) => ({ told: told[i]!.attributes.shapes[0]!, read: readShape(toGrey(x), PICTURE) }));
  await writeFile(
    file,
    await contactSheet(
      pictures.slice(0, 24).map((pixels, i) => ({ pixels, caption: told[i]!.caption })),
      PICTURE,
      8,
    ),
  );
  return scoreShapes(pairs);
}

const gateText = (s: { readonly [k in 'x' | 'y' | 'size' | 'brightness']: number }, digits: number): string =>
  (['x', 'y', 'size', 'brightness'] as const).map((k) => `${k} ${s[k].toFixed(digits)}`).join('  ');

/** Latents and caption states of captioned pictures; `scale` is the latents' own 1/deviation if it is not given. */
async function encodePictures(
  o: {
    readonly backend: Backend;
    readonly vae: Vae;
    readonly text: TextEncoder;
    readonly tokenizer: Tokenizer;
    readonly io: Io;
  },
  count: number,
  pictureAt: (index: number) => { readonly pixels: ArrayLike<number>; readonly caption: string },
  given?: number,
): Promise<{ readonly data: Latents; readonly scale: number }> {
  const started = performance.now();
  const captions: string[] = [];
  const greys = (function* () {
    for (let i = 0; i < count; i++) {
      const { pixels, caption } = pictureAt(i);
      captions.push(caption);
      yield pixels;
    }
  })();
  const { means, channels } = await encodeAll(o.backend, o.vae, greys, count);
  for (const [i, c] of channels.entries())
    print(
      o.io,
      `latent channel ${i}: deviation ${c.deviation.toFixed(3)}, posterior noise ${c.noise.toFixed(3)}${c.noise > 0.3 * c.deviation ? '  (nearly dead)' : ''}`,
    );
  const overall = Math.sqrt(channels.reduce((s, c) => s + c.deviation ** 2, 0) / channels.length);
  const scale = given ?? Number((1 / overall).toPrecision(5));
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  print(o.io, `scaling_factor ${scale}; ${means.length} latents in ${seconds} s`);
  const [empty, ...contexts] = await encodeCaptions(o.backend, o.text, o.tokenizer, ['', ...captions]);
  const data = { latents: means.map((m) => m.map((x) => x * scale)), contexts, empty: empty! };
  if (data.latents[0]?.length !== LATENT * LATENT * 4) throw new Error('latent size differs from the configuration');
  return { data, scale };
}

/** Half shapes, half scenes. */
const joined = (shapes: Latents, scenes: Latents): Latents => {
  const n = scenes.latents.length;
  return {
    latents: [...shapes.latents.slice(0, n), ...scenes.latents],
    contexts: [...shapes.contexts.slice(0, n), ...scenes.contexts],
    empty: shapes.empty,
  };
};

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const backend = await openBackend(o.backend, o.threads ? { threads: o.threads } : {});
  print(io, `backend ${backend.name}: ${backend.device}; states in ${o.work}`);
  const { tokenizer, raw } = await readTokenizer(o.tokenizer, textParsed);

  const vae = await trainVae(backend, o.work, o.vaeSteps);
  if (o.until === 'vae') return;
  const text = await warmStartText(backend, o.work, tokenizer, o.textSteps);
  if (o.until === 'text') return;

  const frozen = { backend, vae, text, tokenizer, io };
  const { data: shapes, scale } = await encodePictures(frozen, o.pictures, (i) => shapeAt(SEED, 'train', i, PICTURE));
  const sheet = path.join(o.work, 'samples.png');
  const measure = (count: number, unet: UNet) => gate(backend, { unet, text }, vae, scale, tokenizer, count, sheet);

  const first = { name: 'phase1', steps: o.phase1Steps, lr: 1.5e-3, share: 0.75, from: 600, ema: 0.996 };
  const one = await trainPhase(backend, o.work, first, undefined, shapes);
  if (o.until === 'phase1') return;
  const second = { name: 'phase2', steps: o.phase2Steps, lr: 1.2e-3, share: 0.75, from: 930, ema: 0.996 };
  const two = await trainPhase(backend, o.work, second, one, shapes, async (step, averaged) => {
    const s = await measure(32, averaged);
    print(io, `gate at step ${step} (32 held-out captions): ${gateText(s, 2)}`);
    return s.x >= 0.97 && s.y >= 0.97 && s.size >= 0.9 && s.brightness >= 0.9;
  });
  if (o.until === 'phase2') return;
  const { data: scenes } = await encodePictures(frozen, o.scenes, (i) => sceneAt(SEED, i, PICTURE), scale);
  const third = { name: 'phase3', steps: o.phase3Steps, lr: 8e-4, tail: 400, share: 0.3, from: 900, ema: 0.99 };
  const unet = await trainPhase(backend, o.work, third, two, joined(shapes, scenes));
  if (o.until === 'phase3') return;

  const final = await measure(96, unet);
  print(io, `final gate, 96 held-out captions: ${gateText(final, 3)}`);
  if (final.x < 0.9 || final.y < 0.9)
    throw new RangeError('the gate is not passed (x and y must be right in 90% of captions): raise --phase2-steps');
  await writeBase(
    o.out,
    {
      configFiles: {
        unet: unetConfig,
        vae: { ...vaeConfig, scaling_factor: scale },
        textEncoder: textConfig,
        scheduler: schedulerConfig,
      },
      tokenizerFiles: raw,
      weights: {
        unet: toCheckpoint(unet, 'F16'),
        vae: toCheckpoint(vae, 'F16'),
        text_encoder: toCheckpoint(text, 'F16'),
      },
    },
    { public: true },
  );
  print(io, `written to ${o.out}`);
  await backend.close();
}

await runMain(import.meta, main, { longRun: true });
