/** The gates of the shipped base: passed as it is, and each missed where the part that it measures is spoilt. */
import { describe, expect } from 'vitest';
import { openBackend, read, type Tensor, tensor } from '../../../core/index.ts';
import { drawingAt } from '../../../train/data/made/drawing-pictures.ts';
import { rasteriseAll, readDrawings } from '../../../train/data/made/drawings.ts';
import { loadPipeline } from '../../../train/model/model.ts';
import { SMALL_BASE } from '../../../train/model/paths.ts';
import type { Pipeline } from '../../../train/model/pipeline.ts';
import { SEED } from '../../../train/pretrain/config.ts';
import { captionsRecognised, filmsDenoised, filmsKept, gates, shapesPlaced } from '../../../train/pretrain/gates.ts';
import { longTest } from '../../support/long.ts';

const N = 16;
const kept = { psnr: 35, ribs: 1, energy: 1, channels: 4 };
const placed = { x: 1, y: 1, size: 1, brightness: 1 };
const good = { kept, denoised: [31, 28, 26], placed, recognised: 1 };

describe('gates', () => {
  longTest.each([
    ['autoencoder, unseen films', { ...good, kept: { ...kept, psnr: 32.9 } }],
    ['ribs', { ...good, kept: { ...kept, ribs: 0.84 } }],
    ['energy', { ...good, kept: { ...kept, energy: 0.79 } }],
    ['channels', { ...good, kept: { ...kept, channels: 3 } }],
    ['t = 199', { ...good, denoised: [29.9, 28, 26] }],
    ['t = 399', { ...good, denoised: [31, 26.9, 26] }],
    ['t = 599', { ...good, denoised: [31, 28, 24.9] }],
    ['left to right', { ...good, placed: { ...placed, x: 0.96 } }],
    ['top to bottom', { ...good, placed: { ...placed, y: 0.96 } }],
    ['size', { ...good, placed: { ...placed, size: 0.94 } }],
    ['recognised', { ...good, recognised: 0.24 }],
  ])('miss %s alone', (what, measured) => {
    expect(gates(good).passed).toBe(true);
    const { passed, lines } = gates(measured);
    expect(passed).toBe(false);
    const missed = lines.filter((line) => line.startsWith('MISSED'));
    expect(missed).toHaveLength(1);
    expect(missed[0]).toContain(what);
  });

  longTest('on the shipped base and on spoilt ones', { timeout: 600_000 }, async () => {
    const backend = await openBackend('wasm', { threads: 1 });
    const { pipeline } = await loadPipeline(SMALL_BASE, backend);
    const unseen = await rasteriseAll(await readDrawings(), 128);
    const drawings = Array.from({ length: 32 }, (_, i) => drawingAt(SEED, 'held-out', i, unseen));
    const vaePart = (p: Pipeline) => ({ vae: p.vae, config: p.configs.vae });
    const scaled = async (t: Tensor, by: number) =>
      tensor(
        Float32Array.from(await read(t), (x) => x * by),
        t.shape,
      );

    const films = await filmsKept(backend, vaePart(pipeline), N);
    const { decoder } = pipeline.vae;
    const faint = { ...decoder.conv_out, weight: await scaled(decoder.conv_out.weight, 0.8) };
    const blurred = { ...pipeline, vae: { ...pipeline.vae, decoder: { ...decoder, conv_out: faint } } };
    const spoiltFilms = await filmsKept(backend, vaePart(blurred), N);
    expect(films.psnr).toBeGreaterThan(33);
    expect(films.ribs).toBeGreaterThan(0.85);
    expect(films.energy).toBeGreaterThan(0.8);
    expect(films.channels).toBe(4);
    expect(spoiltFilms.psnr).toBeLessThan(33);
    expect(spoiltFilms.ribs).toBeLessThan(Math.min(0.85, 0.9 * films.ribs));
    expect(spoiltFilms.energy).toBeLessThan(Math.min(0.8, 0.9 * films.energy));

    const denoised = await filmsDenoised(backend, pipeline, N);
    // a U-Net that sees nothing: films come back with the noise that the sampler leaves on them
    const conv_out = { ...pipeline.unet.conv_out, weight: await scaled(pipeline.unet.conv_out.weight, 0) };
    const spoilt = await filmsDenoised(backend, { ...pipeline, unet: { ...pipeline.unet, conv_out } }, N);
    for (const [i, db] of spoilt.entries()) expect(db).toBeLessThan(denoised[i]! - 2.5);

    // words mixed up: every token stands for another
    const { token_embedding } = pipeline.text.text_model.embeddings;
    const [rows, width] = token_embedding.weight.shape as [number, number];
    const table = (await read(token_embedding.weight)) as Float32Array;
    const mixed = Float32Array.from(
      table,
      (_, i) => table[((Math.floor(i / width) * 7 + 3) % rows) * width + (i % width)]!,
    );
    const embeddings = {
      ...pipeline.text.text_model.embeddings,
      token_embedding: { weight: tensor(mixed, [rows, width]) },
    };
    const mute = { ...pipeline, text: { ...pipeline.text, text_model: { ...pipeline.text.text_model, embeddings } } };
    expect((await shapesPlaced(backend, pipeline, N)).x).toBeGreaterThan(0.9);
    expect((await shapesPlaced(backend, mute, N)).x).toBeLessThan(0.7);
    expect(await captionsRecognised(backend, pipeline, drawings)).toBeGreaterThanOrEqual(0.25);
    expect(await captionsRecognised(backend, mute, drawings)).toBeLessThan(0.25);
    await backend.close();
  });
});
