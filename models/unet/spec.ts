/** The U-Net's parameters, from its configuration. */
import type { Tensor } from '../../core/index.ts';
import {
  type Conv,
  convSpec,
  type Linear,
  linearSpec,
  type Norm,
  normSpec,
  type Param,
  resnetSpec,
} from '../../nn/index.ts';
import type { UNetConfig } from '../config.ts';
import type { DownBlock, MidBlock, UpBlock } from './blocks.ts';
import { transformerSpec } from './transformer.ts';

/** diffusers `UNet2DConditionModel`. */
export type UNet<T = Tensor> = {
  /** latents → the first width */
  readonly conv_in: Conv<T>;
  /** sines of the timestep → the embedding every block gets */
  readonly time_embedding: { readonly linear_1: Linear<T>; readonly linear_2: Linear<T> };
  /** from the finest level to the coarsest */
  readonly down_blocks: readonly DownBlock<T>[];
  /** from the coarsest level to the finest */
  readonly up_blocks: readonly UpBlock<T>[];
  /** at the coarsest level */
  readonly mid_block: MidBlock<T>;
  /** before the last convolution */
  readonly conv_norm_out: Norm<T>;
  /** the first width → latents */
  readonly conv_out: Conv<T>;
};

const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));

/** Names, shapes and starting values. Every list below counts from the top resolution down, except the way up. */
export function unetSpec(c: UNetConfig): UNet<Param> {
  const widths = c.block_out_channels;
  const first = widths[0]!;
  const last = widths.at(-1)!;
  const time = 4 * first;
  const attention = (width: number) => transformerSpec(width, c.cross_attention_dim, c.use_linear_projection);
  /** channels of the skips, in the order they are made */
  const skips = [first];

  const down = widths.map((width, level): DownBlock<Param> => {
    const isLast = level === widths.length - 1;
    const before = widths[level - 1] ?? first;
    skips.push(...times(c.layers_per_block + (isLast ? 0 : 1), () => width));
    return {
      ...(c.down_block_types[level] === 'CrossAttnDownBlock2D'
        ? { attentions: times(c.layers_per_block, () => attention(width)) }
        : {}),
      resnets: times(c.layers_per_block, (i) => resnetSpec(i === 0 ? before : width, width, time)),
      ...(isLast ? {} : { downsamplers: [{ conv: convSpec(width, width, 3) }] }),
    };
  });

  const upward = [...widths].reverse();
  const up = upward.map((width, i): UpBlock<Param> => {
    const below = upward[i - 1] ?? last;
    const layers = c.layers_per_block + 1;
    return {
      ...(c.up_block_types[i] === 'CrossAttnUpBlock2D' ? { attentions: times(layers, () => attention(width)) } : {}),
      resnets: times(layers, (j) => resnetSpec((j === 0 ? below : width) + skips.pop()!, width, time)),
      ...(i === upward.length - 1 ? {} : { upsamplers: [{ conv: convSpec(width, width, 3) }] }),
    };
  });

  return {
    conv_in: convSpec(c.in_channels, first, 3),
    time_embedding: { linear_1: linearSpec(first, time), linear_2: linearSpec(time, time) },
    down_blocks: down,
    up_blocks: up,
    mid_block: { attentions: [attention(last)], resnets: times(2, () => resnetSpec(last, last, time)) },
    conv_norm_out: normSpec(first),
    conv_out: convSpec(first, c.out_channels, 3),
  };
}
