/**
 * The scalar program of a fused kernel ("cluster"): one expression in SSA form, evaluated at every point of an
 * iteration space. The same structure is printed as WASM-SIMD, WGSL, plain JS and gpu.js source.
 */
import type { DType } from '../ir/dtype.ts';

export type ScalarStep =
  /** value of `inputs[input]` at this point */
  | { readonly kind: 'load'; readonly input: number; readonly dtype: DType }
  | { readonly kind: 'const'; readonly value: number; readonly dtype: DType }
  /** coordinate of this point along `axis` of the iteration space */
  | { readonly kind: 'iota'; readonly axis: number; readonly dtype: DType }
  /** an elementwise op applied to earlier steps; `converts`: its argument in another dtype */
  | {
      readonly kind: 'call';
      readonly fn: string;
      readonly args: readonly number[];
      readonly dtype: DType;
      readonly converts?: true;
    };
/** the elementwise ops of a scalar program, in order */
export const callsOf = (steps: readonly ScalarStep[]): string[] =>
  steps.flatMap((s) => (s.kind === 'call' ? [s.fn] : []));

/** Where a load finds its value: element `offset + Σ index[axis]·strides[axis]`. Stride 0 broadcasts, negative flips. */
export interface ClusterInput {
  readonly dtype: DType;
  readonly strides: readonly number[];
  readonly offset: number;
}

export interface Cluster {
  /** the iteration space */
  readonly shape: readonly number[];
  readonly inputs: readonly ClusterInput[];
  readonly steps: readonly ScalarStep[];
  /** the steps that are written, row-major over `shape` (or over the reduced shape); several only without `reduce` */
  readonly outputs: readonly number[];
  /** combine over `axes`; the output has size 1 there */
  readonly reduce?: { readonly op: 'sum' | 'max'; readonly axes: readonly number[] };
}
