/**
 * Text → pictures with classifier-free guidance. The one function behind `generate`, the trainer's samples and the
 * pre-training gate: the same seed, prompt and settings give the same picture everywhere.
 */
import { setImmediate as nextTask } from 'node:timers/promises';
import { type Backend, randomOf, read, type SeedKey, seedKey, subkey, tensor } from '../../core/index.ts';
import { idsTensor } from '../../models/clip/text-encoder.ts';
import { createSampler, guide, runSampler, type SamplerName, type Samples } from '../../models/schedulers/index.ts';
import { attach } from '../../selora/attach.ts';
import type { RunConfig } from '../config/config.ts';
import type { LoadedAdapters, Pipeline } from './pipeline.ts';
import { contextProgram, decodeProgram, denoiseProgram, vaeFactor } from './programs.ts';

export interface SampleOptions {
  readonly steps: number;
  readonly guidance: number;
  readonly sampler: SamplerName;
  /** one per prompt: a picture depends on its prompt, its seed and the settings, and on no picture beside it */
  readonly seeds: readonly number[];
  /** picture size in pixels */
  readonly height: number;
  readonly width: number;
  /** pictures per model call; changes memory, not content */
  readonly batch?: number;
  /** pieces of 77 ids that a prompt may take (default: 1) */
  readonly captionChunks?: number | undefined;
  /** what guidance leads away from; default: the empty text */
  readonly negative?: string | undefined;
  readonly onStep?: (done: number, of: number) => void;
}
/** Seed of a picture → the key of its noise. */
const pictureKey = (seed: number): SeedKey => subkey(subkey(seedKey(seed), 'picture'), 0);

/** `seed`, `seed + 1`, … */
export const seedsFrom = (seed: number, n: number): readonly number[] =>
  Array.from({ length: n }, (_, i) => (seed + i) % Number.MAX_SAFE_INTEGER);

/** RGB pictures [h, w, 3] in [−1, 1], one per prompt. */
export type Generator = (p: Pipeline, prompts: readonly string[], options: SampleOptions) => Promise<Float32Array[]>;

/** Prepares the compiled programs once; they serve any parameters of the same shapes. */
export function createGenerator(backend: Backend, configs: Pipeline['configs']): Generator {
  const encode = contextProgram(backend, configs.text);
  const denoise = denoiseProgram(backend, configs.unet);
  const decode = decodeProgram(backend, configs.vae);

  return async (p, prompts, o) => {
    const factor = vaeFactor(configs.vae);
    if (o.height % factor !== 0 || o.width % factor !== 0)
      throw new RangeError(`picture size ${o.height}×${o.width}: both sides must be multiples of ${factor}`);
    if (o.seeds.length !== prompts.length)
      throw new RangeError(`${o.seeds.length} seeds for ${prompts.length} prompts: expected one each`);
    const [h, w, c] = [o.height / factor, o.width / factor, configs.vae.latent_channels];
    const each = h * w * c;
    const chunks = o.captionChunks ?? 1;
    const size = o.batch ?? 8;
    const guided = o.guidance !== 1;
    const out: Float32Array[] = [];
    const sampler = createSampler(o.sampler, p.schedule, o.steps);
    const calls = sampler.timesteps.length * Math.ceil(prompts.length / size);
    let done = 0;
    for (let from = 0; from < prompts.length; from += size) {
      const group = prompts.slice(from, from + size);
      const n = group.length;
      // unconditional half first
      const texts = guided ? [...group.map(() => o.negative ?? ''), ...group] : group;
      const context = encode(
        p.text,
        idsTensor(
          texts.map((t) => p.tokenizer.encode(t, chunks).ids),
          chunks,
        ),
      );
      const draws = group.map((_, i) => randomOf(pictureKey(o.seeds[from + i]!)));
      const normals = (): Float32Array => {
        const x = new Float32Array(n * each);
        for (let i = 0; i < n; i++) for (let j = 0; j < each; j++) x[i * each + j] = draws[i]!.normal();
        return x;
      };
      const model = async (input: Samples, t: number): Promise<Samples> => {
        // Backends that compute at once would never let a signal in between.
        await nextTask();
        const x = new Float32Array(texts.length * each);
        x.set(input);
        if (guided) x.set(input, n * each);
        const y = await read(
          denoise(p.unet, tensor(x, [texts.length, h, w, c]), tensor(new Float32Array(texts.length).fill(t)), context),
        );
        if (!guided) return y as Float32Array;
        return guide(y.subarray(0, n * each) as Float32Array, y.subarray(n * each) as Float32Array, o.guidance);
      };
      const z = await runSampler(sampler, model, normals(), {
        ...(sampler.stochastic ? { noise: () => normals() } : {}),
        onStep: () => o.onStep?.(++done, calls),
      });
      const pictures = (await read(decode(p.vae, tensor(Float32Array.from(z), [n, h, w, c])))) as Float32Array;
      const pixels = o.height * o.width * 3;
      for (let i = 0; i < n; i++) out.push(pictures.slice(i * pixels, (i + 1) * pixels));
    }
    return out;
  };
}

/**
 * How a run draws the held-out reports: report i from the noise of seed + i, once more from that of seed + i + 1000, and
 * so on. `generate` with a report, its seed and the same settings gives the same picture.
 */
export const pictureOptions = (c: RunConfig, side: number, reports: number, again = 0): SampleOptions => ({
  steps: c.sampleSteps,
  guidance: c.guidance,
  sampler: c.sampler,
  seeds: seedsFrom(c.seed + 1000 * again, reports),
  height: side,
  width: side,
  batch: 8,
  captionChunks: c.captionChunks,
});

/** The model with the adapters of a run. */
export const adaptedPipeline = (pipeline: Pipeline, adapters: LoadedAdapters, backend: Backend): Pipeline => ({
  ...pipeline,
  unet: attach(pipeline.unet, adapters.unet, adapters.scale, backend),
  text: attach(pipeline.text, adapters.text, adapters.scale, backend),
});
