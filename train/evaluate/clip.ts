/** CLIP's vectors of pictures and of texts, from a folder that a person supplies. */
import { createHash } from 'node:crypto';
import { type Backend, compile, read, type Tensor, tensor } from '../../core/index.ts';
import { idsTensor, type TextEncoder, textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { projectionSpec, type VisionEncoder, visionEncoder, visionEncoderSpec } from '../../models/clip/vision.ts';
import { type ClipPictures, openClip } from '../../models/io/clip-folder.ts';
import { load } from '../../models/spec.ts';
import { type Linear, linear } from '../../nn/index.ts';
import { resizeAndCrop8 } from '../data/pictures/resample.ts';
import type { Embedder, Item } from './features.ts';
import { fileHash, type Loaded } from './pictures.ts';

/** A text and what its vector is kept under. */
export interface Text extends Item {
  readonly text: string;
}

/** A text as the cache wants it. */
export const textItem = (text: string): Text => ({ text, hash: createHash('sha256').update(text).digest('hex') });

/** Both of CLIP's towers. */
export interface Clip {
  /** as the page names it */
  readonly name: string;
  readonly pictures: Embedder<Loaded>;
  readonly texts: Embedder<Text>;
  /** whether a text has more ids than the tower reads */
  readonly cut: (text: string) => boolean;
}

/** The shortest side to `side`, the middle square of it, (x/255 − mean)/std: [side, side, 3]. Source: transformers' CLIPImageProcessor. */
export function clipPixels({ width, height, data }: Loaded, { side, mean, std }: ClipPictures): Float32Array {
  const square = resizeAndCrop8({ width, height, channels: 3, data }, side, 'bicubic', 'down');
  return Float32Array.from(square.data, (x, i) => (x / 255 - mean[i % 3]!) / std[i % 3]!);
}

type Seeing<T> = VisionEncoder<T> & { readonly visual_projection: Pick<Linear<T>, 'weight'> };
type Reading<T> = TextEncoder<T> & { readonly text_projection: Pick<Linear<T>, 'weight'> };

/** items at a time; one program: the last batch is filled up */
const BATCH = 8;

/**
 * Opens a CLIP model for `backend`.
 * @throws FileError naming the file and what is missing, of another shape or not supported
 */
export async function clipEmbedders(folder: string, backend: Backend): Promise<Clip> {
  const { text, vision, dims, tokenizer, pictures, weights, files } = await openClip(folder);
  const spec = {
    ...textEncoderSpec(text),
    ...visionEncoderSpec(vision),
    visual_projection: projectionSpec(vision.hidden_size, dims),
    text_projection: projectionSpec(text.hidden_size, dims),
  };
  const parameters = (await load(spec as never, weights, { backend })) as unknown as Seeing<Tensor> & Reading<Tensor>;
  const { vision_model, visual_projection, text_model, text_projection } = parameters;
  const see = compile(
    (p: Seeing<Tensor>, x: Tensor) => linear(p.visual_projection, visionEncoder(p, vision, x).poolerOutput),
    { backend, name: 'clip pictures' },
  );
  const understand = compile(
    (p: Reading<Tensor>, ids: Tensor) => linear(p.text_projection, textEncoder(p, text, ids).poolerOutput),
    { backend, name: 'clip texts' },
  );
  const hashes = await Promise.all(files.map(fileHash));
  const hash = createHash('sha256')
    .update(JSON.stringify([hashes, text, vision, pictures]))
    .digest('hex')
    .slice(0, 12);
  const rows = async (all: Tensor, n: number) => {
    const values = (await read(all)) as Float32Array;
    return Array.from({ length: n }, (_, i) => values.slice(i * dims, (i + 1) * dims));
  };
  const { side } = pictures;
  return {
    name: `CLIP of ${vision.num_hidden_layers} layers, patches of ${vision.patch_size} at ${side} pixels, ${dims} numbers, weights ${hash}`,
    cut: (line) => tokenizer.encode(line).cut,
    pictures: {
      items: 'pictures by CLIP',
      id: `clip-pictures-${hash}`,
      batch: BATCH,
      async features(loaded) {
        const pixels = new Float32Array(BATCH * side * side * 3);
        for (const [i, p] of loaded.entries()) pixels.set(clipPixels(p, pictures), i * side * side * 3);
        return rows(see({ vision_model, visual_projection }, tensor(pixels, [BATCH, side, side, 3])), loaded.length);
      },
    },
    texts: {
      items: 'texts by CLIP',
      id: `clip-texts-${hash}`,
      batch: BATCH,
      async features(texts) {
        const filled = Array.from({ length: BATCH }, (_, i) => tokenizer.encode(texts[i]?.text ?? '').ids);
        return rows(understand({ text_model, text_projection }, idsTensor(filled)), texts.length);
      },
    },
  };
}
