import { add, reshape, type Tensor } from '../core/index.ts';
import { silu } from './activations.ts';
import { type Conv, conv2d, convSpec } from './conv.ts';
import { type Linear, linear, linearSpec } from './linear.ts';
import { groupNorm, type Norm, normSpec } from './norm.ts';
import type { Param } from './spec.ts';

/** diffusers `ResnetBlock2D`. The shortcut is there where the number of channels changes. */
export type Resnet<T = Tensor> = {
  /** before the first convolution */
  readonly norm1: Norm<T>;
  /** changes the number of channels */
  readonly conv1: Conv<T>;
  /** adds the time embedding to every pixel */
  readonly time_emb_proj?: Linear<T>;
  /** before the second convolution */
  readonly norm2: Norm<T>;
  /** keeps the number of channels */
  readonly conv2: Conv<T>;
  /** 1×1, where the number of channels changes */
  readonly conv_shortcut?: Conv<T>;
};

/** `time` is the width of the time embedding; without it the block takes none (the autoencoder's). */
export const resnetSpec = (inputs: number, outputs: number, time?: number): Resnet<Param> => ({
  norm1: normSpec(inputs),
  conv1: convSpec(inputs, outputs, 3),
  ...(time === undefined ? {} : { time_emb_proj: linearSpec(time, outputs) }),
  norm2: normSpec(outputs),
  conv2: convSpec(outputs, outputs, 3),
  ...(inputs === outputs ? {} : { conv_shortcut: convSpec(inputs, outputs, 1) }),
});

/**
 * x[n, h, w, c] → [n, h, w, c']: two rounds of norm, SiLU, 3×3 convolution beside a shortcut; the projected time
 * embedding time[n, t] shifts the channels in between (SiLU comes before its projection).
 */
export function resnet(p: Resnet, x: Tensor, norm: { groups: number; eps: number }, time?: Tensor): Tensor {
  let h = conv2d(p.conv1, groupNorm(p.norm1, x, { ...norm, silu: true }));
  if (p.time_emb_proj && time) {
    const shift = linear(p.time_emb_proj, silu(time));
    h = add(h, reshape(shift, [shift.shape[0]!, 1, 1, shift.shape[1]!]));
  }
  h = conv2d(p.conv2, groupNorm(p.norm2, h, { ...norm, silu: true }));
  return add(p.conv_shortcut ? conv2d(p.conv_shortcut, x) : x, h);
}
