/**
 * Stage 2: the text encoder's warm start. A caption must predict a 12×12 thumbnail of its picture from one hidden state
 * (the end token or a random padding position): cheap, and it teaches place, size and brightness in minutes.
 */
import { mean as meanOf } from 'd3-array';
import {
  type Backend,
  gather,
  mean,
  mul,
  randomOf,
  reshape,
  seedKey,
  sub,
  subkey,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import { type TextEncoder, textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import { textEncoderSchema } from '../../models/config.ts';
import { init, type Linear, linear, linearSpec, silu } from '../../nn/index.ts';
import type { Raster } from '../data/made/drawings.ts';
import { SEED, textConfig } from './config.ts';
import { trainStage, warmCosine } from './stage.ts';
import { type Captioned, type Kind, worldAt } from './world.ts';

export const textParsed = textEncoderSchema.parse(textConfig);
const THUMB = 12;
const TOLD = THUMB * THUMB + 2;
const BATCH = 48;
const LENGTH = 77;

type Head = { readonly fc1: Linear; readonly fc2: Linear };
type Params = { readonly text: TextEncoder; readonly head: Head };
type Batch = { readonly ids: Tensor; readonly at: Tensor; readonly thumb: Tensor };

function loss({ text, head }: Params, { ids, at, thumb }: Batch): Tensor {
  const h = textEncoder(text, textParsed, ids).lastHiddenState;
  const [n, t, d] = h.shape as [number, number, number];
  const state = gather(reshape(h, [n * t, d]), at);
  const predicted = linear(head.fc2, silu(linear(head.fc1, state)));
  const e = sub(predicted, thumb);
  return mean(mul(e, e));
}

/**
 * A picture drawn at 36×36, averaged to 12×12: its values less their mean over their deviation, then that mean and that
 * deviation. So a faint shape on a plain ground counts as much as a drawing that is all black and white.
 */
function thumbnail({ pixels }: Captioned): Float32Array {
  const values = new Float32Array(THUMB * THUMB);
  for (let y = 0; y < THUMB * 3; y++)
    for (let x = 0; x < THUMB * 3; x++)
      values[Math.floor(y / 3) * THUMB + Math.floor(x / 3)]! += pixels[y * THUMB * 3 + x]! / 9;
  const mean = meanOf(values)!;
  const deviation = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
  return Float32Array.from([
    ...values.map((x) => (x - mean) / Math.max(deviation, 0.02)),
    ...[(mean - 0.4) / 0.15, (deviation - 0.1) / 0.05],
  ]);
}

export async function warmStartText(
  backend: Backend,
  folder: string,
  tokenizer: Tokenizer,
  steps: number,
  rasters: readonly Raster[],
): Promise<TextEncoder> {
  const draw = (kind: Kind, index: number) => {
    const one = worldAt(rasters, kind, index, THUMB * 3);
    return { thumb: thumbnail(one), ...tokenizer.encode(one.caption) };
  };
  // shapes teach place, size and brightness; drawings and scenes the other words
  const pool = (kind: Kind, most: number) =>
    Array.from({ length: Math.min(most, BATCH * steps) }, (_, i) => draw(kind, i));
  const pools = [pool('shape', 6000), pool('drawing', 20_000), pool('scene', 6000)];
  const batch = (step: number): Batch => {
    const r = randomOf(subkey(seedKey(SEED), `text ${step}`));
    const ids = new Int32Array(BATCH * LENGTH);
    const at = new Int32Array(BATCH);
    const thumb = new Float32Array(BATCH * TOLD);
    for (let b = 0; b < BATCH; b++) {
      const one = r.choice(pools[r.weighted([0.4, 0.4, 0.2])]!);
      ids.set(one.ids, b * LENGTH);
      // the end token, or any position after it
      const end = Math.min(one.length, LENGTH) - 1;
      at[b] = b * LENGTH + (r.chance(0.5) ? end : end + r.int(LENGTH - end));
      thumb.set(one.thumb, b * TOLD);
    }
    return { ids: tensor(ids, [BATCH, LENGTH]), at: tensor(at), thumb: tensor(thumb, [BATCH, TOLD]) };
  };
  const text = init(textEncoderSpec(textParsed), SEED + 1) as TextEncoder;
  // rows the base data never touch ("effusion") must not drown in the position rows: start at deviation .1, not .02
  const r = randomOf(subkey(seedKey(SEED), 'tokens'));
  const table = Float32Array.from({ length: textConfig.vocab_size * textConfig.hidden_size }, () => 0.1 * r.normal());
  const started = {
    text_model: {
      ...text.text_model,
      embeddings: {
        ...text.text_model.embeddings,
        token_embedding: { weight: tensor(table, [textConfig.vocab_size, textConfig.hidden_size]) },
      },
    },
  };
  const head = init({ fc1: linearSpec(textConfig.hidden_size, 256), fc2: linearSpec(256, TOLD) }, SEED + 2) as Head;
  const trained = await trainStage<Params, Batch>({
    name: 'text',
    backend,
    folder,
    params: { text: started, head },
    steps,
    loss,
    batch,
    lr: warmCosine(2e-3, 100, steps),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, decoupled: true },
    clip: 1,
    ema: 0.99,
  });
  return trained.text;
}
