/** The public names of the core, grouped as in README.md; everything else may change. */
// tensors and trees

// backends
export type { Backend, BackendName, Executable, Graph, KernelReport, MemoryReport } from './backends/backend.ts';
export { cpuBackend } from './backends/cpu/index.ts';
export { type Compiled, compile, evaluate } from './compile/compile.ts';
export { place, read, readScalar, tensor } from './compile/data.ts';
export { attention } from './fused/attention.ts';
export { groupNorm, layerNorm } from './fused/norm.ts';
// fused
export { softmax } from './fused/softmax.ts';
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
export type { Shape, Tensor } from './ir/tensor.ts';
export { cast } from './ops/cast.ts';
export { concat, stack } from './ops/concat.ts';
export { alias, barrier, stopGradient } from './ops/control.ts';
export { type ConvAttrs, conv, convInput, convKernel } from './ops/conv.ts';
// contractions
export { dot } from './ops/dot.ts';
export { full, iota, ones, zeros } from './ops/fill.ts';
export { gather, scatterAdd, take, takeAlong } from './ops/gather.ts';
export { asFloat } from './ops/half.ts';
export { broadcastTo, expandTo, flip, permute, reshape, squeeze, swap, unsqueeze } from './ops/layout.ts';
// elementwise
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
  pow,
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
// randomness
export { fold, type Key, key, keys, normal, split, threefry, uniform } from './ops/random.ts';
// reductions, layout, indexing
export { max, mean, sum } from './ops/reduce.ts';
export { registry } from './ops/registry.ts';
export { pad, padTo, slice } from './ops/slice.ts';
export { checkKeys } from './transforms/check-keys.ts';
export { checkpoint } from './transforms/checkpoint.ts';
// transformations
export { grad, pullback, valueAndGrad, vjp } from './transforms/grad.ts';
export { entries, fromPaths, leaves, mapTree, type Tree, unflatten, zipTrees } from './transforms/tree.ts';
export { vmap } from './transforms/vmap.ts';
