/**
 * Stage 2: the text encoder's warm start. A caption must predict a 12×12 thumbnail of its picture from one hidden state
 * (the end token or a random padding position): cheap, and it teaches place, size and brightness in two minutes.
 */
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
import { shapeAt } from '../data/made/shapes.ts';
import { SEED, textConfig } from './config.ts';
import { trainStage, warmCosine } from './stage.ts';

export const textParsed = textEncoderSchema.parse(textConfig);
const THUMB = 12;
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

export async function warmStartText(
  backend: Backend,
  folder: string,
  tokenizer: Tokenizer,
  steps: number,
): Promise<TextEncoder> {
  // thumbnails are drawn small: a 36×36 picture averaged to 12×12
  const draw = (index: number) => {
    const { pixels, caption } = shapeAt(SEED, 'train', index, THUMB * 3);
    const thumb = new Float32Array(THUMB * THUMB);
    for (let y = 0; y < THUMB * 3; y++)
      for (let x = 0; x < THUMB * 3; x++)
        thumb[Math.floor(y / 3) * THUMB + Math.floor(x / 3)]! += (pixels[y * THUMB * 3 + x]! - 0.4) / 9 / 0.15;
    return { thumb, ...tokenizer.encode(caption) };
  };
  const pool = Array.from({ length: 6000 }, (_, i) => draw(i));
  const batch = (step: number): Batch => {
    const r = randomOf(subkey(seedKey(SEED), `text ${step}`));
    const ids = new Int32Array(BATCH * LENGTH);
    const at = new Int32Array(BATCH);
    const thumb = new Float32Array(BATCH * THUMB * THUMB);
    for (let b = 0; b < BATCH; b++) {
      const one = r.choice(pool);
      ids.set(one.ids, b * LENGTH);
      // the end token, or any position after it
      const end = Math.min(one.length, LENGTH) - 1;
      at[b] = b * LENGTH + (r.chance(0.5) ? end : end + r.int(LENGTH - end));
      thumb.set(one.thumb, b * THUMB * THUMB);
    }
    return { ids: tensor(ids, [BATCH, LENGTH]), at: tensor(at), thumb: tensor(thumb, [BATCH, THUMB * THUMB]) };
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
  const head = init(
    { fc1: linearSpec(textConfig.hidden_size, 256), fc2: linearSpec(256, THUMB * THUMB) },
    SEED + 2,
  ) as Head;
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
