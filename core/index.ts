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
export { type Host, type HostWorker, host, setHost } from './ir/host.ts';
export { nf4Words, packNf4 } from './ir/nf4.ts';
export { type GraphData, type GraphNode, print, toGraph } from './ir/print.ts';
export { bind, type Composite, type Op, type Primitive, type Shape, type Tensor } from './ir/tensor.ts';
export { entries, fromPaths, leaves, type MappedTree, mapTree, type Tree, unflatten, zipTrees } from './ir/tree.ts';
export { findOp, opNames, registry } from './registry.ts';

// ── elementwise functions, with broadcasting ───────────────────────────────────────────────────────────────────────

export { elu, gelu, leakyRelu, logSigmoid, relu, silu } from './functions/activations.ts';
export {
  ceil,
  greater,
  greaterEqual,
  isInf,
  isNan,
  lessEqual,
  logicalAnd,
  logicalNot,
  logicalOr,
  logicalXor,
  notEqual,
  remainder,
  round,
  type StepOptions,
  sign,
  trunc,
  where,
} from './functions/comparisons.ts';
export {
  acos,
  asin,
  atan,
  atan2,
  cosh,
  erfInv,
  expm1,
  log1p,
  sinh,
  softplus,
  tan,
} from './functions/smooth.ts';
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
  finite as isFinite,
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

export { eigh, svd } from './functions/linalg/eigen.ts';
export { inv, qr, solve } from './functions/linalg/qr.ts';
export { cholesky, type TriangularOptions, triangularSolve } from './functions/linalg/triangular.ts';
export { einsum, matmul, outer } from './functions/products.ts';
export {
  all,
  any,
  argmax,
  argmin,
  crossEntropy,
  cumprod,
  cumsum,
  logSoftmax,
  logsumexp,
  min,
  prod,
  std,
  type VarianceOptions,
  variance,
  vectorNorm,
  vectorNorm as norm,
} from './functions/reductions.ts';
export { averagePool, type Conv1dOptions, conv1d, maxPool, type Windows } from './functions/windows.ts';
export { type ConvAttrs, type ConvOptions, conv, convInput, convKernel } from './ops/conv.ts';
export { dot } from './ops/dot.ts';
export { max, mean, sum } from './ops/reduce.ts';

// ── views, pieces, rows ────────────────────────────────────────────────────────────────────────────────────────────

export {
  arange,
  diag,
  diagonalOf,
  eye,
  linspace,
  oneHot,
  repeat,
  roll,
  tile,
  tril,
  triu,
} from './functions/arrays.ts';
export { dynamicSlice, dynamicUpdateSlice, scatterSet } from './functions/indexing.ts';
export { argsort, type SortOptions, sort, topK } from './functions/sorting.ts';
export { concat, stack } from './ops/concat.ts';
export { gather, scatterAdd, take, takeAlong } from './ops/gather.ts';
export { broadcastTo, expandTo, flip, permute, reshape, squeeze, swap, unsqueeze } from './ops/layout.ts';
export { pad, padTo, slice } from './ops/slice.ts';
export { split } from './ops/split.ts';

// ── sources ────────────────────────────────────────────────────────────────────────────────────────────────────────

export { place, read, readScalar, tensor } from './compile/data.ts';
export {
  bernoulli,
  categorical,
  exponential,
  gumbel,
  permutation,
  randint,
  truncatedNormal,
} from './functions/random.ts';
export { full, iota, ones, zeros } from './ops/fill.ts';
export { bits, fold, type Key, key, keys, normal, splitKey, threefry, uniform } from './ops/random.ts';
export { type Random, randomOf, type SeedKey, seedKey, subkey } from './ops/random-host.ts';

// ── composites ─────────────────────────────────────────────────────────────────────────────────────────────────────

export { attention } from './fused/attention.ts';
export { groupNorm, layerNorm } from './fused/norm.ts';
export { softmax } from './fused/softmax.ts';

// ── transformations ────────────────────────────────────────────────────────────────────────────────────────────────

export { alias, barrier, mark, stopGradient } from './ops/control.ts';
export { checkpoint } from './transforms/checkpoint.ts';
export { customVjp } from './transforms/custom.ts';
export { grad, pullback, valueAndGrad, vjp } from './transforms/grad.ts';
export { hessian, type JacobianMode, jacobian, jvp, type Leafwise, linearize } from './transforms/jvp.ts';
export { once } from './transforms/once.ts';
export { scan } from './transforms/scan.ts';
export { type Axes, vmap } from './transforms/vmap.ts';

// ── compilation and backends ───────────────────────────────────────────────────────────────────────────────────────

export { cpuBackend } from './backends/cpu/index.ts';
export { type BackendChoice, backendNames, type OpenOptions, openBackend } from './backends/open.ts';
export type { Backend, BackendName, Executable, Graph, KernelReport, MemoryReport, Stage } from './compile/backend.ts';
export { checkKeys } from './compile/checkKeys.ts';
export { type Compiled, compile, evaluate, type Stages } from './compile/compile.ts';
export { checkFinite, NonFiniteError } from './compile/finite.ts';

// ── looking inside ─────────────────────────────────────────────────────────────────────────────────────────────────

export { type Captured, capture } from './inspect/capture.ts';
export { type CheckGradOptions, checkGrad, type GradReport, type Worst } from './inspect/checkGrad.ts';
