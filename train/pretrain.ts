/**
 * npm run pretrain: makes the small base model from nothing: autoencoder, text warm start, U-Net, the last until its
 * samples put single shapes where their captions say, and then on drawings and scenes at all noise levels. Everything is
 * saved as it goes: run it again to go on where it stopped. `--check DIR` measures a base by the gates alone.
 *
 *   npm run pretrain                             # all stages, written to runs/small-base
 *   npm run pretrain -- --out /tmp/base          # somewhere else
 *   npm run pretrain -- --check models/small-base
 */
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
import { command, type Io, parseArgs, print, runMain, UsageError } from './cli/command.ts';
import { drawingAt } from './data/made/drawing-pictures.ts';
import { type Raster, rasteriseAll, readDrawings } from './data/made/drawings.ts';
import { loadPipeline } from './model/model.ts';
import type { Pipeline } from './model/pipeline.ts';
import { PICTURE, SEED, schedulerConfig, textConfig, unetConfig, vaeConfig } from './pretrain/config.ts';
import { trainDecoder } from './pretrain/decoder.ts';
import { captionsRecognised, filmsDenoised, filmsKept, gates, type Kept, shapesPlaced } from './pretrain/gates.ts';
import { encodedSet } from './pretrain/latents.ts';
import { textParsed, warmStartText } from './pretrain/text-encoder.ts';
import { encodeCaptions, type Latents, schedule, trainPhase, unetParsed } from './pretrain/unet.ts';
import { trainVae, vaeParsed } from './pretrain/vae.ts';
import { KINDS, type Kind, worldAt } from './pretrain/world.ts';

const EXAMPLES = ['', '--out my-base', '--until vae --vae-steps 1000', '--check models/small-base'];

const program = (io: Io) =>
  command(
    'pretrain',
    'Makes the small base model: autoencoder, text encoder and U-Net, from captioned shapes, drawings and textures.',
    EXAMPLES,
    io,
  )
    .option('--out <dir>', 'where the finished base goes (diffusers layout, a new folder)', 'runs/small-base')
    .option('--work <dir>', 'states of unfinished stages', '.cache/pretrain')
    .option('--tokenizer <dir>', 'vocab.json and merges.txt of SD 1.5', 'models/small-base/tokenizer')
    .option('--backend <name>', 'wasm, webgpu, cpu', 'wasm')
    .option('--threads <n>', 'threads of the wasm backend', Number)
    .option('--vae-steps <n>', 'autoencoder steps of 8 crops', Number, 9000)
    .option('--text-steps <n>', 'warm-start steps of 48 captions', Number, 6000)
    .option('--pictures <n>', 'captioned shapes, as many scenes and as many drawings for the U-Net', Number, 6000)
    .option('--phase1-steps <n>', 'U-Net steps of 16, timesteps mostly 600…999', Number, 1500)
    .option('--phase2-steps <n>', 'U-Net steps of 16 at most, timesteps mostly 930…999', Number, 2400)
    .option(
      '--phase3-steps <n>',
      'U-Net steps of 16, most on scenes and drawings, timesteps mostly uniform',
      Number,
      6000,
    )
    .option('--decoder-steps <n>', 'steps of 8 crops of the decoder alone, at the end', Number, 3000)
    .option('--gate <n>', 'pictures that each gate looks at', Number, 96)
    .option('--until <stage>', 'stop after vae, text, phase1, phase2 or phase3')
    .option('--check <dir>', 'measure this base by the gates, and make none');

type Options = {
  out: string;
  work: string;
  tokenizer: string;
  backend: 'wasm' | 'webgpu' | 'cpu';
  threads?: number;
  vaeSteps: number;
  textSteps: number;
  pictures: number;
  phase1Steps: number;
  phase2Steps: number;
  phase3Steps: number;
  decoderSteps: number;
  gate: number;
  until?: string;
  check?: string;
};

/** All gates of a base, one line each. @throws UsageError where one is missed */
async function check(io: Io, backend: Backend, p: Pipeline, rasters: readonly Raster[], n: number): Promise<void> {
  const unseen = Array.from({ length: Math.min(32, n) }, (_, i) => drawingAt(SEED, 'held-out', i, rasters, PICTURE));
  const { lines, passed } = gates({
    kept: await filmsKept(backend, { vae: p.vae, config: p.configs.vae }, n),
    denoised: await filmsDenoised(backend, p, Math.min(48, n)),
    placed: await shapesPlaced(backend, p, n),
    recognised: await captionsRecognised(backend, p, unseen),
  });
  print(io, lines.join('\n'));
  if (!passed) throw new UsageError('not every gate is passed');
}

/** 1/deviation of all latents together, five digits. */
function scaleOf(latents: readonly Float32Array[]): number {
  let [n, sum, squares] = [0, 0, 0];
  for (const one of latents)
    for (const x of one) {
      n++;
      sum += x;
      squares += x * x;
    }
  return Number((1 / Math.sqrt(squares / n - (sum / n) ** 2)).toPrecision(5));
}

const keptText = (k: Kept): string =>
  `${k.psnr.toFixed(2)} dB, ribs ${k.ribs.toFixed(3)} and energy at 0.1–0.25 cycles a pixel ${k.energy.toFixed(3)} of the films', ${k.channels} live channels`;

type Frozen = { readonly vae: Vae; readonly text: TextEncoder; readonly tokenizer: Tokenizer };

/** The three phases of the U-Net; `undefined` where it was to stop before the last one's end. */
async function trainUNet(o: Options, io: Io, backend: Backend, f: Frozen, rasters: readonly Raster[]) {
  const encoded: Awaited<ReturnType<typeof encodedSet>>[] = [];
  for (const kind of KINDS)
    encoded.push(await encodedSet({ backend, ...f }, o.work, kind, o.pictures, (i) => worldAt(rasters, kind, i)));
  const scale = scaleOf(encoded.flatMap(({ means }) => means));
  print(io, `scaling_factor ${scale}`);
  const latents = encoded.map(({ means }) => means.map((m) => m.map((x) => x * scale)));
  const sets = (shares: Readonly<Record<Kind, number>>): Latents[] =>
    KINDS.map((kind, i) => ({ latents: latents[i]!, contexts: encoded[i]!.contexts, share: shares[kind] }));
  const [empty] = (await encodeCaptions(backend, f.text, f.tokenizer, [''])) as [Float32Array];
  const configs = { unet: unetParsed, vae: vaeSchema.parse({ ...vaeConfig, scaling_factor: scale }), text: textParsed };
  const pipeline = (unet: UNet): Pipeline => ({ ...f, unet, configs, schedule });

  const mostlyShapes = sets({ shape: 0.5, scene: 0.2, drawing: 0.3 });
  const first = { name: 'phase1', steps: o.phase1Steps, lr: 1.5e-3, share: 0.6, from: 600, ema: 0.996 };
  const one = await trainPhase(backend, o.work, first, undefined, mostlyShapes, empty);
  if (o.until === 'phase1') return;

  const second = { name: 'phase2', steps: o.phase2Steps, lr: 1.2e-3, share: 0.75, from: 930, ema: 0.996 };
  const shapes = sets({ shape: 0.7, scene: 0.1, drawing: 0.2 });
  const two = await trainPhase(backend, o.work, second, one, shapes, empty, async (step, unet) => {
    const n = Math.min(32, o.gate);
    const s = await shapesPlaced(backend, pipeline(unet), n, path.join(o.work, 'samples.png'));
    const text = `x ${s.x.toFixed(2)}  y ${s.y.toFixed(2)}  size ${s.size.toFixed(2)}  brightness ${s.brightness.toFixed(2)}`;
    print(io, `phase2 at step ${step}, ${n} held-out captions: ${text}`);
    return s.x >= 0.97 && s.y >= 0.97 && s.size >= 0.9 && s.brightness >= 0.9;
  });
  if (o.until === 'phase2') return;

  const [steps, tail] = [o.phase3Steps, 0.4 * o.phase3Steps];
  const third = { name: 'phase3', steps, lr: 1e-3, tail, share: 0.25, from: 900, ema: 0.998 };
  const mostlyScenes = sets({ shape: 0.25, scene: 0.4, drawing: 0.35 });
  const unet = await trainPhase(backend, o.work, third, two, mostlyScenes, empty, async (step, averaged) => {
    if (step % 1500 !== 0) return false;
    const db = await filmsDenoised(backend, pipeline(averaged), Math.min(24, o.gate));
    const text = db.map((x) => x.toFixed(1)).join(', ');
    print(io, `phase3 at step ${step}: films noised to t = 199, 399, 599 come back at ${text} dB`);
    return false;
  });
  return o.until === 'phase3' ? undefined : { unet, scale, pipeline: pipeline(unet) };
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const backend = await openBackend(o.backend, o.threads ? { threads: o.threads } : {});
  const rasters = await rasteriseAll(await readDrawings(), PICTURE);
  if (o.check) {
    await check(io, backend, (await loadPipeline(o.check, backend)).pipeline, rasters, o.gate);
    return;
  }
  print(io, `backend ${backend.name}: ${backend.device}; states in ${o.work}`);
  const { tokenizer, raw } = await readTokenizer(o.tokenizer, textParsed);

  const kept = async (what: string, vae: Vae, n: number) =>
    print(io, `${what}: ${keptText(await filmsKept(backend, { vae, config: vaeParsed }, n))}`);
  const vae = await trainVae(backend, o.work, o.vaeSteps, rasters, async (step, averaged) => {
    await kept(`autoencoder on unseen films after ${step} steps`, averaged, Math.min(24, o.gate));
    return false;
  });
  await kept(`autoencoder on ${o.gate} unseen films`, vae, o.gate);
  if (o.until === 'vae') return;
  const text = await warmStartText(backend, o.work, tokenizer, o.textSteps, rasters);
  if (o.until === 'text') return;
  const trained = await trainUNet(o, io, backend, { vae, text, tokenizer }, rasters);
  if (!trained) return;
  const probe = async (step: number, averaged: Vae) => {
    await kept(`decoder after ${step} steps`, averaged, Math.min(24, o.gate));
    return false;
  };
  const last = await trainDecoder(backend, o.work, vae, 1 / trained.scale, o.decoderSteps, rasters, probe);

  await writeBase(
    o.out,
    {
      configFiles: {
        unet: unetConfig,
        vae: { ...vaeConfig, scaling_factor: trained.scale },
        textEncoder: textConfig,
        scheduler: schedulerConfig,
      },
      tokenizerFiles: raw,
      weights: {
        unet: toCheckpoint(trained.unet, 'F16'),
        vae: toCheckpoint(last, 'F16'),
        text_encoder: toCheckpoint(text, 'F16'),
      },
    },
    { public: true },
  );
  print(io, `written to ${o.out}`);
  await check(io, backend, { ...trained.pipeline, vae: last }, rasters, o.gate);
  await backend.close();
}

await runMain(import.meta, main, { longRun: true });
