/**
 * What a parameter is before it has values: shape (PyTorch's), the kind of layer it belongs to, and how it starts.
 * A layer's type is written once over its leaves, `Linear<T>`: `Linear<Param>` is its specification, `Linear` (of
 * tensors) its values. The paths of such a tree are diffusers' checkpoint names.
 */
import type { Tensor } from '../core/index.ts';

/** How a fresh parameter is filled. */
export type Init =
  | {
      /** the same number everywhere */
      readonly kind: 'constant';
      /** that number */
      readonly value: number;
    }
  | {
      /** uniform in [−bound, bound) */
      readonly kind: 'uniform';
      /** the largest magnitude */
      readonly bound: number;
    }
  | {
      /** normal around 0 */
      readonly kind: 'normal';
      /** standard deviation */
      readonly std: number;
    };

/** What a parameter belongs to; adapters go on `linear` and `conv`. */
export type LayerKind = 'linear' | 'conv' | 'norm' | 'embedding';

/** One parameter. A class, because trees take plain records for inner nodes. */
export class Param {
  /** as PyTorch stores it: linear [out, in], convolution [out, in, kh, kw] */
  readonly shape: readonly number[];
  /** what it belongs to */
  readonly layer: LayerKind;
  /** how it starts */
  readonly init: Init;
  constructor(layer: LayerKind, shape: readonly number[], init: Init) {
    this.layer = layer;
    this.shape = shape;
    this.init = init;
  }
}

/** The tree of values that a tree of specifications stands for. */
export type Params<S> = S extends Param ? Tensor : { readonly [K in keyof S]: Params<S[K]> };

/** Every value the same. */
export const constant = (value: number): Init => ({ kind: 'constant', value });
/** PyTorch's default for linear layers and convolutions, weight and bias: uniform within ±1/√fan-in. */
export const fanIn = (inputs: number): Init => ({ kind: 'uniform', bound: 1 / Math.sqrt(inputs) });
/** Normal with mean 0. */
export const gaussian = (std: number): Init => ({ kind: 'normal', std });
