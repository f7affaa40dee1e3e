/** Which kernels run which op: the one table that links op names to WGSL. Clusters are printed, everything else is here. */

import { isOnce } from '../../compile/bodies.ts';
import type { AttentionAttrs } from '../../fused/attention.ts';
import { type NormAttrs, type NormGradAttrs, normSizes } from '../../fused/norm.ts';
import { isFloat, isStored } from '../../ir/dtype.ts';
import { CoreError } from '../../ir/errors.ts';
import type { Op, Tensor } from '../../ir/tensor.ts';
import { sizeOf, type View } from '../../ir/view.ts';
import type { ConcatAttrs } from '../../ops/concat.ts';
import type { ConvAttrs, ConvSizedAttrs } from '../../ops/conv.ts';
import type { BitsAttrs } from '../../ops/random.ts';
import type { PadAttrs } from '../../ops/slice.ts';
import { attentionGradRecipe, attentionRecipe } from './attention.ts';
import { printConv } from './conv.ts';
import { printConvKernel } from './convKernel.ts';
import { concatRecipe, gatherKernel, padRecipe, randomBitsKernel, scatterAddKernel, wordOf } from './copies.ts';
import { fromHalfKernel, gatherStoredKernel } from './half.ts';
import { type Recipe, single } from './kernel.ts';
import { fromNf4Kernel } from './nf4.ts';
import { normGradRecipe, normRecipe } from './norm.ts';
import type { AdapterClass, Target } from './target.ts';
import { convInputRecipe, dotRecipe } from './transposed.ts';

interface OpKernels {
  /** operands that may be any strided view; the others arrive in row-major order */
  readonly strided: boolean;
  /** true: it leaves out the results nobody wants. Otherwise all are wanted */
  readonly partial?: boolean;
  readonly recipe: (
    node: Tensor,
    views: readonly View[],
    adapter: AdapterClass,
    target: Target,
    wanted: readonly boolean[],
  ) => Recipe;
}

const rest = (t: Tensor, axes: number): number => sizeOf(t.shape.slice(axes));

const attentionSizes = (q: Tensor, k: Tensor) => {
  const [b, m, c] = q.shape as readonly [number, number, number];
  return { b, m, n: k.shape[1]!, c };
};

const table: Readonly<Record<string, OpKernels>> = {
  dot: { strided: true, recipe: (_node, [a, b], adapter) => dotRecipe({ a: a!, b: b! }, adapter) },
  conv: {
    strided: true,
    recipe: ({ attrs, shape }, [x, w], adapter) =>
      single(printConv({ kind: 'conv', x: x!, w: w!, out: shape, attrs: attrs as ConvAttrs }, adapter)),
  },
  convInput: {
    strided: true,
    recipe: ({ attrs, shape }, [x, w], adapter) =>
      convInputRecipe({ kind: 'convInput', x: x!, w: w!, out: shape, attrs: attrs as ConvSizedAttrs }, adapter),
  },
  convKernel: {
    strided: true,
    recipe: ({ attrs }, [x, g], adapter) =>
      single(printConvKernel({ x: x!, g: g!, attrs: attrs as ConvSizedAttrs }, adapter)),
  },
  gather: {
    strided: false,
    recipe: ({ inputs: [x, ids] }, _views, adapter) => {
      const sizes = [x!.shape[0]!, rest(x!, 1), sizeOf(ids!.shape)] as const;
      return single(
        isStored(x!.dtype) ? gatherStoredKernel(x!.dtype, ...sizes, adapter) : gatherKernel(...sizes, adapter),
      );
    },
  },
  fromHalf: { strided: true, recipe: (_node, [x], adapter) => single(fromHalfKernel(x!, adapter)) },
  fromNf4: { strided: true, recipe: (_node, [x], adapter) => single(fromNf4Kernel(x!, adapter)) },
  scatterAdd: {
    strided: false,
    recipe: ({ inputs: [g, ids], shape, dtype }, _views, adapter) =>
      single(scatterAddKernel(dtype, shape[0]!, rest(g!, ids!.shape.length), sizeOf(ids!.shape), adapter)),
  },
  pad: {
    strided: true,
    recipe: ({ attrs, shape, dtype }, [x], adapter) => {
      const a = attrs as PadAttrs;
      return padRecipe(x!, shape, a, wordOf(a.value, isFloat(dtype)), adapter);
    },
  },
  concat: {
    strided: true,
    recipe: ({ attrs }, views, adapter) => concatRecipe(views, (attrs as ConcatAttrs).axis, adapter),
  },
  attention: {
    strided: false,
    recipe: ({ inputs: [q, k], attrs }, _views, _adapter, target) =>
      attentionRecipe(attentionSizes(q!, k!), attrs as AttentionAttrs, target),
  },
  attentionGrad: {
    strided: false,
    recipe: ({ inputs: [, q, k], attrs }, _views, _adapter, target) =>
      attentionGradRecipe(attentionSizes(q!, k!), attrs as AttentionAttrs, target),
  },
  norm: {
    strided: false,
    partial: true,
    recipe: ({ inputs: [x], attrs }, _views, adapter, _target, wanted) => {
      const { groups, eps, silu } = attrs as NormAttrs;
      return normRecipe({ ...normSizes(x!.shape, groups), silu }, eps, wanted, adapter);
    },
  },
  normGrad: {
    strided: false,
    partial: true,
    recipe: ({ inputs: [, x], attrs }, _views, adapter, _target, wanted) => {
      const { groups, silu, blocks } = attrs as NormGradAttrs;
      return normGradRecipe({ ...normSizes(x!.shape, groups), silu }, blocks, wanted, adapter);
    },
  },
  randomBits: {
    strided: false,
    recipe: ({ inputs: [, offset], attrs }, _views, adapter) => {
      const { count, stream } = attrs as BitsAttrs;
      return single(randomBitsKernel(sizeOf(offset!.shape), count, stream, adapter));
    },
  },
};

export const isStrided = (op: Op): boolean => table[op.name]?.strided ?? false;
export const isPartial = (op: Op): boolean => table[op.name]?.partial ?? false;

/** Composites that are not written out: they run as kernels of their own, or their body is lowered by itself. */
export const hasKernel = (op: Op): boolean => isOnce(op) || (op.kind === 'composite' && table[op.name] !== undefined);

/** primitives whose kernels compute in f32 only, as all composites do */
const floatOnly = new Set(['dot', 'conv', 'convInput', 'convKernel']);

/**
 * The kernels of one node. `wanted`: which of its results have a buffer.
 * @throws CoreError when the op has none, or not for this dtype
 */
export const recipeOf = (
  node: Tensor,
  views: readonly View[],
  target: Target,
  wanted: readonly boolean[] = node.outs.map(() => true),
): Recipe => {
  const kernels = table[node.op.name];
  if (!kernels) throw new CoreError(`the webgpu backend has no kernel for ${node.op.name}`);
  if ((node.op.kind === 'composite' || floatOnly.has(node.op.name)) && node.dtype !== 'f32')
    throw new CoreError(`the webgpu backend computes ${node.op.name} in f32, not in ${node.dtype}`);
  return kernels.recipe(node, views, target.class, target, wanted);
};
