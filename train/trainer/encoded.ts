/** The pairs of a run as latents and ids, made once; a line where it takes long. */
import type { Backend } from '../../core/index.ts';
import { capacityOf } from '../../models/clip/tokenizer.ts';
import { type Io, print } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { type Encoded, encodePairs } from '../model/encode.ts';
import type { Pipeline } from '../model/pipeline.ts';
import type { PhaseClock } from '../run/phases.ts';
import type { RunData, RunPair } from './pairs.ts';

/** how long nothing is said */
const QUIET_MS = 20_000;

/** Training pairs, and those of the validation grid. */
export type EncodedData = { readonly training: readonly Encoded[]; readonly validation: readonly Encoded[] };

/** Encodes pictures and texts, and says what there is. */
export async function encodeData(
  { train, validation, test, source }: RunData,
  side: number,
  c: RunConfig,
  { vae, configs, tokenizer }: Pipeline,
  backend: Backend,
  clock: PhaseClock,
  io: Io,
): Promise<EncodedData> {
  let told = performance.now();
  const onProgress = (done: number, of: number): void => {
    if (performance.now() - told < QUIET_MS) return;
    told = performance.now();
    print(io, `… ${done} of ${of} pictures encoded`);
  };
  const encode = (pairs: readonly RunPair[]) =>
    clock.time('encode pictures', () =>
      encodePairs(backend, vae, configs.vae, tokenizer, pairs, side, { captionChunks: c.captionChunks, onProgress }),
    );
  const encoded = {
    training: await encode(train),
    validation: await encode(validation.slice(0, c.validationPairs)),
  };
  const cut = encoded.training.filter((p) => p.cut).length;
  print(
    io,
    `${source}: ${train.length} training, ${validation.length} validation, ${test.length} test pairs; ${cut} training captions cut at ${capacityOf(tokenizer.config, c.captionChunks)} ids`,
  );
  if (c.buckets) print(io, `sizes of training pictures: ${sizesOf(train, side)}`);
  return encoded;
}

/** `96x160 12, 128x128 80`: how many pictures of each size. */
function sizesOf(pairs: readonly RunPair[], side: number): string {
  const counts = new Map<string, number>();
  for (const { sized } of pairs) {
    const { width, height } = sized ?? { width: side, height: side };
    counts.set(`${width}x${height}`, (counts.get(`${width}x${height}`) ?? 0) + 1);
  }
  return [...counts].map(([size, n]) => `${size} ${n}`).join(', ');
}
