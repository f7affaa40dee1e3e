/** The spatial transformer of the U-Net: pixels attend to each other and to the text. */
import { add, reshape, type Tensor } from '../../core/index.ts';
import {
  type Attention,
  attention,
  attentionSpec,
  type Conv,
  conv2d,
  convSpec,
  geglu,
  groupNorm,
  type Linear,
  layerNorm,
  linear,
  linearSpec,
  type Norm,
  normSpec,
  type Param,
} from '../../nn/index.ts';
import { below, seen, type Tap } from '../tap.ts';

/** diffusers `FeedForward` with GEGLU: `net.0` projects and gates, `net.2` projects back (`net.1` is dropout). */
export type FeedForward<T = Tensor> = {
  readonly net: { readonly 0: { readonly proj: Linear<T> }; readonly 2: Linear<T> };
};

/** diffusers `BasicTransformerBlock`. */
export type TransformerBlock<T = Tensor> = {
  readonly norm1: Norm<T>;
  readonly attn1: Attention<T>;
  readonly norm2: Norm<T>;
  readonly attn2: Attention<T>;
  readonly norm3: Norm<T>;
  readonly ff: FeedForward<T>;
};

/** diffusers `Transformer2DModel`. `proj_in` and `proj_out` are 1×1 convolutions, or linear layers where configured. */
export type Transformer<T = Tensor> = {
  readonly norm: Norm<T>;
  readonly proj_in: Conv<T> | Linear<T>;
  readonly transformer_blocks: readonly TransformerBlock<T>[];
  readonly proj_out: Conv<T> | Linear<T>;
};

export function transformerSpec(width: number, context: number, linearProjection: boolean): Transformer<Param> {
  const projection = () => (linearProjection ? linearSpec(width, width) : convSpec(width, width, 1));
  return {
    norm: normSpec(width),
    proj_in: projection(),
    transformer_blocks: [
      {
        norm1: normSpec(width),
        attn1: attentionSpec(width),
        norm2: normSpec(width),
        attn2: attentionSpec(width, context),
        norm3: normSpec(width),
        ff: { net: { 0: { proj: linearSpec(width, 8 * width) }, 2: linearSpec(4 * width, width) } },
      },
    ],
    proj_out: projection(),
  };
}

/** diffusers fixes these two, whatever the configuration says for the resnets. */
const GROUP_NORM_EPS = 1e-6;
const LAYER_NORM_EPS = 1e-5;

/** x[n, t, c], context[n, k, d] → [n, t, c]: self-attention, cross-attention, feed-forward, each after a norm. */
function transformerBlock(p: TransformerBlock, x: Tensor, context: Tensor, heads: number, tap?: Tap): Tensor {
  const self = attention(p.attn1, layerNorm(p.norm1, x, LAYER_NORM_EPS), heads);
  let h = add(x, seen(tap, 'attn1', self));
  const cross = attention(p.attn2, layerNorm(p.norm2, h, LAYER_NORM_EPS), heads, context);
  h = add(h, seen(tap, 'attn2', cross));
  const gated = geglu(linear(p.ff.net[0].proj, layerNorm(p.norm3, h, LAYER_NORM_EPS)));
  return add(h, seen(tap, 'ff', linear(p.ff.net[2], gated)));
}

/** x[n, h, w, c], context[n, k, d] → [n, h, w, c]. */
export function transformer(
  p: Transformer,
  x: Tensor,
  context: Tensor,
  { heads, groups }: { heads: number; groups: number },
  tap?: Tap,
): Tensor {
  const [n, height, width, channels] = x.shape as [number, number, number, number];
  let h = pointwise(p.proj_in, groupNorm(p.norm, x, { groups, eps: GROUP_NORM_EPS }));
  h = reshape(h, [n, height * width, channels]);
  for (const [i, block] of p.transformer_blocks.entries()) {
    const path = `transformer_blocks.${i}`;
    h = seen(tap, path, transformerBlock(block, h, context, heads, below(tap, path)));
  }
  return add(pointwise(p.proj_out, reshape(h, x.shape)), x);
}

/** The same map of channels at every pixel, however its weight is stored. */
const pointwise = (p: Conv | Linear, x: Tensor): Tensor => (p.weight.shape.length === 4 ? conv2d(p, x) : linear(p, x));
