/**
 * The autoencoder between pictures and latents (Rombach et al. 2022; diffusers `AutoencoderKL`). Latents here are the
 * model's own: the U-Net's are these times `scaling_factor`, which is the caller's business.
 */
import { add, clip, exp, mul, reshape, ShapeError, slice, type Tensor } from '../../core/index.ts';
import { attention, conv2d, downsample, groupNorm, resnet, upsample } from '../../nn/index.ts';
import type { VaeConfig } from '../config.ts';
import type { Decoder, Encoder, Vae, VaeAttention, VaeMidBlock } from './spec.ts';

/** diffusers fixes this one for the whole autoencoder. */
const EPS = 1e-6;
type NormOptions = { readonly groups: number; readonly eps: number };
const normOf = (c: VaeConfig): NormOptions => ({ groups: c.norm_num_groups, eps: EPS });

/** The posterior of a picture: independent normals. */
export type Posterior = {
  /** [n, h/f, w/f, c] */
  readonly mean: Tensor;
  /** ln σ², of the same shape */
  readonly logvar: Tensor;
};

/**
 * Pictures x[n, h, w, 3] in [−1, 1] → mean and log-variance of the latents [n, h/f, w/f, c] (f = 2^(levels−1)).
 * @throws ShapeError
 */
export function vaeEncode(p: Pick<Vae, 'encoder' | 'quant_conv'>, config: VaeConfig, x: Tensor): Posterior {
  check('vae encoder', 'pictures', x, config.in_channels);
  const moments = conv2d(p.quant_conv, encoder(p.encoder, x, normOf(config)));
  const mean = slice(moments, { axis: 3, stop: config.latent_channels });
  const logvar = clip(slice(moments, { axis: 3, start: config.latent_channels }), -30, 20);
  return { mean, logvar };
}

/** A sample of the posterior: mean + e^(logvar/2)·noise. */
export const vaeSample = ({ mean, logvar }: Posterior, noise: Tensor): Tensor =>
  add(mean, mul(exp(mul(logvar, 0.5)), noise));

/** Latents z[n, h, w, c] (not scaled) → pictures [n, f·h, f·w, 3], about [−1, 1]. @throws ShapeError */
export function vaeDecode(p: Pick<Vae, 'decoder' | 'post_quant_conv'>, config: VaeConfig, z: Tensor): Tensor {
  check('vae decoder', 'latents', z, config.latent_channels);
  return decoder(p.decoder, conv2d(p.post_quant_conv, z), normOf(config));
}

function encoder(p: Encoder, x: Tensor, norm: NormOptions): Tensor {
  let h = conv2d(p.conv_in, x);
  for (const block of p.down_blocks) {
    for (const layer of block.resnets) h = resnet(layer, h, norm);
    if (block.downsamplers) h = downsample(block.downsamplers[0], h, 'after');
  }
  h = midBlock(p.mid_block, h, norm);
  return conv2d(p.conv_out, groupNorm(p.conv_norm_out, h, { ...norm, silu: true }));
}

function decoder(p: Decoder, z: Tensor, norm: NormOptions): Tensor {
  let h = midBlock(p.mid_block, conv2d(p.conv_in, z), norm);
  for (const block of p.up_blocks) {
    for (const layer of block.resnets) h = resnet(layer, h, norm);
    if (block.upsamplers) h = upsample(block.upsamplers[0], h);
  }
  return conv2d(p.conv_out, groupNorm(p.conv_norm_out, h, { ...norm, silu: true }));
}

function midBlock(p: VaeMidBlock, x: Tensor, norm: NormOptions): Tensor {
  const h = pixelAttention(p.attentions[0], resnet(p.resnets[0], x, norm), norm);
  return resnet(p.resnets[1], h, norm);
}

/** Every pixel attends to every other, one head. */
function pixelAttention(p: VaeAttention, x: Tensor, norm: NormOptions): Tensor {
  const [n, h, w, c] = x.shape as [number, number, number, number];
  const pixels = reshape(groupNorm(p.group_norm, x, norm), [n, h * w, c]);
  return add(x, reshape(attention(p, pixels, 1), x.shape));
}

function check(what: string, operand: string, x: Tensor, channels: number): void {
  if (x.shape.length !== 4 || x.shape[3] !== channels)
    throw new ShapeError(
      `${what}: ${operand} [${x.shape.join(', ')}], expected [n, h, w, ${channels}] (channels last)`,
    );
}
