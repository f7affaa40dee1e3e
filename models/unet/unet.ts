/** The denoising U-Net of Stable Diffusion 1.5 (Rombach et al. 2022; diffusers `UNet2DConditionModel`). */
import { checkpoint, ShapeError, type Tensor } from '../../core/index.ts';
import { conv2d, groupNorm, linear, silu, timestepEmbedding } from '../../nn/index.ts';
import { headsPerLevel, type UNetConfig } from '../config.ts';
import { below, seen, type Tap } from '../tap.ts';
import { type BlockOptions, type Conditions, downBlock, midBlock, upBlock } from './blocks.ts';
import type { UNet } from './spec.ts';

/** What a call of `unet` may be told beside its inputs. */
export type UNetOptions = {
  /** keep only each block's input for the backward pass and compute the block again there: less memory, more time */
  readonly checkpointBlocks?: boolean;
  /** sees the submodules' results; only without `checkpointBlocks`, whose blocks are closed */
  readonly tap?: Tap;
};

/**
 * Noisy latents x[n, h, w, c], timesteps t[n], text context[n, k, d] → predicted noise (or velocity) [n, h, w, c].
 * Any h and w: on the way up, a level is resized to its skips' size.
 * @throws ShapeError naming the operand
 * @example unet(params, config, latents, timesteps, textEncoder(text, textConfig, ids).lastHiddenState)
 */
export function unet(
  p: UNet,
  config: UNetConfig,
  x: Tensor,
  t: Tensor,
  context: Tensor,
  { checkpointBlocks = false, tap }: UNetOptions = {},
): Tensor {
  checkShapes(config, x, t, context);
  const norm = { groups: config.norm_num_groups, eps: config.norm_eps };
  const heads = headsPerLevel(config);
  const levels = heads.length;
  const options = (level: number, path: string): BlockOptions => ({
    ...norm,
    heads: heads[level]!,
    tap: checkpointBlocks ? undefined : below(tap, path),
  });
  const block: typeof checkpoint = checkpointBlocks ? checkpoint : (f) => f;
  const see = (path: string, value: Tensor) => seen(tap, path, value);

  const c: Conditions = { time: timeEmbedding(p, config, x, t, see), context };
  let h = see('conv_in', conv2d(p.conv_in, x));
  const skips = [h];
  for (const [level, parameters] of p.down_blocks.entries()) {
    const path = `down_blocks.${level}`;
    const out = block((x: Tensor, c: Conditions) => downBlock(parameters, x, c, options(level, path)))(h, c);
    h = see(path, out.x);
    skips.push(...out.skips);
  }
  h = see(
    'mid_block',
    block((x: Tensor, c: Conditions) => midBlock(p.mid_block, x, c, options(levels - 1, 'mid_block')))(h, c),
  );
  for (const [i, parameters] of p.up_blocks.entries()) {
    const path = `up_blocks.${i}`;
    const mine = skips.splice(-parameters.resnets.length);
    const [, height, width] = (skips.at(-1) ?? x).shape as [number, number, number];
    const run = (x: Tensor, skips: readonly Tensor[], c: Conditions) =>
      upBlock(parameters, x, skips, c, { ...options(levels - 1 - i, path), size: [height, width] });
    h = see(path, block(run)(h, mine, c));
  }
  // the trained model has its SiLU between these two; the tap sees the norm as diffusers has it, without
  if (tap) see('conv_norm_out', groupNorm(p.conv_norm_out, h, norm));
  return see('conv_out', conv2d(p.conv_out, groupNorm(p.conv_norm_out, h, { ...norm, silu: true })));
}

/** t[n] → [n, 4·c₀]. */
function timeEmbedding(
  p: UNet,
  config: UNetConfig,
  x: Tensor,
  t: Tensor,
  see: (path: string, value: Tensor) => Tensor,
): Tensor {
  const wave = timestepEmbedding(t, config.block_out_channels[0]!, {
    dtype: x.dtype === 'f64' ? 'f64' : 'f32',
    flipSinToCos: config.flip_sin_to_cos,
    freqShift: config.freq_shift,
  });
  const h = silu(linear(p.time_embedding.linear_1, see('time_proj', wave)));
  return see('time_embedding', linear(p.time_embedding.linear_2, h));
}

function checkShapes(c: UNetConfig, x: Tensor, t: Tensor, context: Tensor): void {
  const [n] = x.shape;
  const show = (s: Tensor) => `[${s.shape.join(', ')}]`;
  if (x.shape.length !== 4 || x.shape[3] !== c.in_channels)
    throw new ShapeError(`unet: latents ${show(x)}, expected [n, h, w, ${c.in_channels}] (channels last)`);
  if (t.shape.length !== 1 || t.shape[0] !== n) throw new ShapeError(`unet: timesteps ${show(t)}, expected [${n}]`);
  if (context.shape.length !== 3 || context.shape[0] !== n || context.shape[2] !== c.cross_attention_dim)
    throw new ShapeError(`unet: context ${show(context)}, expected [${n}, length, ${c.cross_attention_dim}]`);
}
