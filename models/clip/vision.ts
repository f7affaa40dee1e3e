/** CLIP's tower for pictures, and the projections that bring pictures and texts together (transformers `CLIPModel`). */
import { add, concat, expandTo, reshape, ShapeError, slice, type Tensor } from '../../core/index.ts';
import {
  conv2d,
  type Embedding,
  embeddingSpec,
  fanIn,
  gaussian,
  layerNorm,
  type Norm,
  normSpec,
  Param,
} from '../../nn/index.ts';
import { type ClipLayer, type ClipSizes, clipLayer, clipLayersSpec } from './text-encoder.ts';

/** Sizes of the tower; `image_size` and `patch_size` in pixels. */
export type VisionConfig = ClipSizes & { readonly image_size: number; readonly patch_size: number };

/** transformers `CLIPVisionModel`; `pre_layrnorm` is spelled so in its files. */
export type VisionEncoder<T = Tensor> = {
  /** patches, layers and norms, under the name of the checkpoints */
  readonly vision_model: {
    readonly embeddings: {
      readonly class_embedding: T;
      readonly patch_embedding: { readonly weight: T };
      readonly position_embedding: Embedding<T>;
    };
    readonly pre_layrnorm: Norm<T>;
    readonly encoder: { readonly layers: readonly ClipLayer<T>[] };
    readonly post_layernorm: Norm<T>;
  };
};

/** Names and shapes of the tower. */
export function visionEncoderSpec(c: VisionConfig): VisionEncoder<Param> {
  const d = c.hidden_size;
  const patches = (c.image_size / c.patch_size) ** 2;
  return {
    vision_model: {
      embeddings: {
        class_embedding: new Param('embedding', [d], gaussian(d ** -0.5)),
        patch_embedding: { weight: new Param('conv', [d, 3, c.patch_size, c.patch_size], gaussian(0.02)) },
        position_embedding: embeddingSpec(patches + 1, d, 0.02),
      },
      pre_layrnorm: normSpec(d),
      encoder: { layers: clipLayersSpec(c) },
      post_layernorm: normSpec(d),
    },
  };
}

/** `visual_projection` or `text_projection`: no bias. */
export const projectionSpec = (inputs: number, outputs: number): { readonly weight: Param } => ({
  weight: new Param('linear', [outputs, inputs], fanIn(inputs)),
});

/** What `visionEncoder` makes of x[n, side, side, 3]. */
export type VisionEncoding = {
  /** after the last layer, before the last norm: class token and patches [n, 1 + patches, d] */
  readonly lastHiddenState: Tensor;
  /** the class token after the last norm [n, d] */
  readonly poolerOutput: Tensor;
};

/**
 * Pictures x[n, side, side, 3], normalised by CLIP's means and deviations → hidden states. Embeddings of texts come from
 * `textEncoder`'s pooler output; both are projected by a linear layer without bias.
 * @throws ShapeError for another side than `image_size`
 * @example linear(visualProjection, visionEncoder(params, config, x).poolerOutput) // [n, projection]
 */
export function visionEncoder(p: VisionEncoder, c: VisionConfig, x: Tensor): VisionEncoding {
  const { embeddings, pre_layrnorm, encoder, post_layernorm } = p.vision_model;
  const [n, h, w] = x.shape as [number, number, number];
  if (h !== c.image_size || w !== c.image_size)
    throw new ShapeError(`CLIP: pictures [${x.shape}], expected [n, ${c.image_size}, ${c.image_size}, 3]`);
  const d = c.hidden_size;
  const grid = conv2d(embeddings.patch_embedding, x, { stride: c.patch_size, padding: 0 });
  const patches = reshape(grid, [n, grid.shape[1]! * grid.shape[2]!, d]);
  const first = expandTo(reshape(embeddings.class_embedding, [1, 1, d]), [n, 1, d]);
  let y = add(concat([first, patches], 1), embeddings.position_embedding.weight);
  y = layerNorm(pre_layrnorm, y, c.layer_norm_eps);
  for (const layer of encoder.layers) y = clipLayer(layer, c, y, false);
  const pooled = reshape(slice(y, { axis: 1, stop: 1 }), [n, d]);
  return { lastHiddenState: y, poolerOutput: layerNorm(post_layernorm, pooled, c.layer_norm_eps) };
}
