import { groupNorm as coreGroupNorm, layerNorm as coreLayerNorm, type Tensor } from '../core/index.ts';
import { constant, Param } from './spec.ts';

/** Scale and shift per channel. */
export type Norm<T = Tensor> = {
  /** the scale of each channel [c] */
  readonly weight: T;
  /** the shift of each channel [c] */
  readonly bias: T;
};

/** Specification of scale and shift of `channels` channels: 1 and 0, so that a fresh norm only normalises. */
export const normSpec = (channels: number): Norm<Param> => ({
  weight: new Param('norm', [channels], constant(1)),
  bias: new Param('norm', [channels], constant(0)),
});

export type GroupNormOptions = {
  readonly groups: number;
  readonly eps: number;
  /** apply SiLU in the same pass */
  readonly silu?: boolean;
};

/** x[n, h, w, c] normalised over each picture and group of channels (torch.nn.GroupNorm). @throws ShapeError */
export const groupNorm = (p: Norm, x: Tensor, { groups, eps, silu = false }: GroupNormOptions): Tensor =>
  coreGroupNorm(x, p.weight, p.bias, { groups, eps, silu });

/** x[…, c] normalised over the last axis (torch.nn.LayerNorm). @throws ShapeError */
export const layerNorm = (p: Norm, x: Tensor, eps: number): Tensor => coreLayerNorm(x, p.weight, p.bias, eps);
