/** The autoencoder's parameters, from its configuration. */
import type { Tensor } from '../../core/index.ts';
import {
  type Attention,
  attentionSpec,
  type Conv,
  convSpec,
  type Downsampler,
  type Norm,
  normSpec,
  type Param,
  type Resnet,
  resnetSpec,
  type Upsampler,
} from '../../nn/index.ts';
import type { VaeConfig } from '../config.ts';

export type VaeAttention<T = Tensor> = Attention<T> & { readonly group_norm: Norm<T> };
export type VaeMidBlock<T = Tensor> = {
  readonly attentions: readonly [VaeAttention<T>];
  readonly resnets: readonly [Resnet<T>, Resnet<T>];
};
export type Encoder<T = Tensor> = {
  readonly conv_in: Conv<T>;
  readonly down_blocks: readonly {
    readonly resnets: readonly Resnet<T>[];
    readonly downsamplers?: readonly [Downsampler<T>];
  }[];
  readonly mid_block: VaeMidBlock<T>;
  readonly conv_norm_out: Norm<T>;
  readonly conv_out: Conv<T>;
};
export type Decoder<T = Tensor> = {
  readonly conv_in: Conv<T>;
  readonly up_blocks: readonly {
    readonly resnets: readonly Resnet<T>[];
    readonly upsamplers?: readonly [Upsampler<T>];
  }[];
  readonly mid_block: VaeMidBlock<T>;
  readonly conv_norm_out: Norm<T>;
  readonly conv_out: Conv<T>;
};
/** diffusers `AutoencoderKL`. */
export type Vae<T = Tensor> = {
  /** pictures → moments of the latents */
  readonly encoder: Encoder<T>;
  /** latents → pictures */
  readonly decoder: Decoder<T>;
  /** 1×1 after the encoder */
  readonly quant_conv: Conv<T>;
  /** 1×1 before the decoder */
  readonly post_quant_conv: Conv<T>;
};

const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));

const midSpec = (width: number): VaeMidBlock<Param> => ({
  attentions: [{ group_norm: normSpec(width), ...attentionSpec(width, width, true) }],
  resnets: [resnetSpec(width, width), resnetSpec(width, width)],
});

/** Names, shapes and starting values. */
export function vaeSpec(c: VaeConfig): Vae<Param> {
  const widths = c.block_out_channels;
  const first = widths[0]!;
  const last = widths.at(-1)!;
  const upward = [...widths].reverse();
  return {
    encoder: {
      conv_in: convSpec(c.in_channels, first, 3),
      down_blocks: widths.map((width, level) => ({
        resnets: times(c.layers_per_block, (i) => resnetSpec(i === 0 ? (widths[level - 1] ?? first) : width, width)),
        ...(level === widths.length - 1 ? {} : { downsamplers: [{ conv: convSpec(width, width, 3) }] as const }),
      })),
      mid_block: midSpec(last),
      conv_norm_out: normSpec(last),
      conv_out: convSpec(last, 2 * c.latent_channels, 3),
    },
    decoder: {
      conv_in: convSpec(c.latent_channels, last, 3),
      up_blocks: upward.map((width, level) => ({
        resnets: times(c.layers_per_block + 1, (i) => resnetSpec(i === 0 ? (upward[level - 1] ?? last) : width, width)),
        ...(level === upward.length - 1 ? {} : { upsamplers: [{ conv: convSpec(width, width, 3) }] as const }),
      })),
      mid_block: midSpec(last),
      conv_norm_out: normSpec(first),
      conv_out: convSpec(first, c.out_channels, 3),
    },
    quant_conv: convSpec(2 * c.latent_channels, 2 * c.latent_channels, 1),
    post_quant_conv: convSpec(c.latent_channels, c.latent_channels, 1),
  };
}
