/**
 * The public names of the core, in reading order; everything else may change. A blank line below each heading keeps the
 * formatter from sorting names across headings.
 */

// ── what a program is made of ──────────────────────────────────────────────────────────────────────────────────────

export type { DType, HostArray } from './ir/dtype.ts';
export {
  CoreError,
  DeviceLimitError,
  DonatedError,
  KeyReuseError,
  LostDeviceError,
  MissingRuleError,
  ShapeError,
} from './ir/errors.ts';
export { print } from './ir/print.ts';
export { bind, type Composite, type Op, type Primitive, type Shape, type Tensor } from './ir/tensor.ts';
export { entries, fromPaths, leaves, mapTree, type Tree, unflatten, zipTrees } from './ir/tree.ts';
export { findOp, registry } from './registry.ts';

// ── elementwise functions, with broadcasting ───────────────────────────────────────────────────────────────────────

export { cast } from './ops/cast.ts';
export {
  abs,
  add,
  clip,
  cos,
  div,
  equal,
  erf,
  exp,
  finite,
  floor,
  less,
  log,
  maximum,
  minimum,
  mul,
  neg,
  not,
  recip,
  rsqrt,
  select,
  sigmoid,
  sin,
  sqrt,
  square,
  sub,
  tanh,
} from './ops/math.ts';
export { pow } from './ops/pow.ts';
export { asFloat } from './ops/stored.ts';

// ── reductions and contractions ────────────────────────────────────────────────────────────────────────────────────

export { type ConvAttrs, conv, convInput, convKernel } from './ops/conv.ts';
export { dot } from './ops/dot.ts';
export { max, mean, sum } from './ops/reduce.ts';

// ── views, pieces, rows ────────────────────────────────────────────────────────────────────────────────────────────

export { concat, stack } from './ops/concat.ts';
export { gather, scatterAdd, take, takeAlong } from './ops/gather.ts';
export { broadcastTo, expandTo, flip, permute, reshape, squeeze, swap, unsqueeze } from './ops/layout.ts';
export { pad, padTo, slice } from './ops/slice.ts';

// ── sources ────────────────────────────────────────────────────────────────────────────────────────────────────────

export { place, read, readScalar, tensor } from './compile/data.ts';
export { full, iota, ones, zeros } from './ops/fill.ts';
export { fold, type Key, key, keys, normal, split, threefry, uniform } from './ops/random.ts';
export { type Random, randomOf, type SeedKey, seedKey, subkey } from './ops/random-host.ts';

// ── composites ─────────────────────────────────────────────────────────────────────────────────────────────────────

export { attention } from './fused/attention.ts';
export { groupNorm, layerNorm } from './fused/norm.ts';
export { softmax } from './fused/softmax.ts';

// ── transformations ────────────────────────────────────────────────────────────────────────────────────────────────

export { alias, barrier, stopGradient } from './ops/control.ts';
export { checkpoint } from './transforms/checkpoint.ts';
export { grad, pullback, valueAndGrad, vjp } from './transforms/grad.ts';
export { vmap } from './transforms/vmap.ts';

// ── compilation and backends ───────────────────────────────────────────────────────────────────────────────────────

export { cpuBackend } from './backends/cpu/index.ts';
export { type BackendChoice, backendNames, type OpenOptions, openBackend } from './backends/open.ts';
export type { Backend, BackendName, Executable, Graph, KernelReport, MemoryReport } from './compile/backend.ts';
export { checkKeys } from './compile/checkKeys.ts';
export { type Compiled, compile, evaluate } from './compile/compile.ts';
