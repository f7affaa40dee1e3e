/** The only list of all ops: the test battery, `explain` and the documentation walk it, and the functions written in ops beside it. */

import { functions } from './functions/catalog.ts';
import { eighOp, svdOp } from './functions/linalg/eigen.ts';
import { qrOp, solveOp } from './functions/linalg/qr.ts';
import { choleskyOp, triangularSolveOp } from './functions/linalg/triangular.ts';
import { smoothOps } from './functions/smooth.ts';
import { attentionGradOp, attentionOp } from './fused/attention.ts';
import { normGradOp, normOp } from './fused/norm.ts';
import { softmaxOp } from './fused/softmax.ts';
import type { Op } from './ir/tensor.ts';
import { castOp } from './ops/cast.ts';
import { concatOp } from './ops/concat.ts';
import { aliasOp, barrierOp, markOp, stopGradientOp } from './ops/control.ts';
import { convInputOp, convKernelOp, convOp } from './ops/conv.ts';
import { dotOp } from './ops/dot.ts';
import { table } from './ops/elementwise.ts';
import { fullOp, iotaOp } from './ops/fill.ts';
import { gatherOp, scatterAddOp } from './ops/gather.ts';
import { fromHalfOp } from './ops/half.ts';
import { expandOp, flipOp, permuteOp, reshapeOp } from './ops/layout.ts';
import { fromNf4Op } from './ops/nf4.ts';
import { powOp } from './ops/pow.ts';
import { randomBitsOp } from './ops/random.ts';
import { maxOp, sumOp } from './ops/reduce.ts';
import { padOp, sliceOp } from './ops/slice.ts';
import { splitOp } from './ops/split.ts';
import { checkpointOp } from './transforms/checkpoint.ts';
import { customVjpOp } from './transforms/custom.ts';
import { onceOp } from './transforms/once.ts';

const all: readonly unknown[] = [
  ...Object.values(table),
  castOp,
  fromHalfOp,
  fromNf4Op,
  sumOp,
  maxOp,
  reshapeOp,
  permuteOp,
  expandOp,
  sliceOp,
  flipOp,
  padOp,
  concatOp,
  splitOp,
  gatherOp,
  scatterAddOp,
  dotOp,
  convOp,
  convInputOp,
  convKernelOp,
  fullOp,
  iotaOp,
  randomBitsOp,
  aliasOp,
  stopGradientOp,
  markOp,
  barrierOp,
  powOp,
  ...smoothOps,
  triangularSolveOp,
  choleskyOp,
  qrOp,
  solveOp,
  eighOp,
  svdOp,
  softmaxOp,
  normOp,
  normGradOp,
  attentionOp,
  attentionGradOp,
  checkpointOp,
  onceOp,
  customVjpOp,
];
/** Every op by its name.  @example registry.get('dot') */
export const registry: ReadonlyMap<string, Op> = new Map((all as readonly Op[]).map((op) => [op.name, op]));

/** ops, then functions written in ops */
const named: readonly Op[] = [...registry.values(), ...(functions.values() as Iterable<unknown> as Iterable<Op>)];
/** what people type for a name: without case and without what joins words */
const plain = (name: string): string => name.toLowerCase().replace(/[_\s-]/g, '');
const byName = new Map(named.flatMap((op) => (op.aliases ?? []).map((a) => [plain(a), op] as const)));
for (const op of named) byName.set(plain(op.name), op);
/** The op, or the function written in ops, of a name or of another name people look it up by (`layer_norm`, `swish`). */
export const findOp = (name: string): Op | undefined => registry.get(name) ?? byName.get(plain(name));
/** Every name `findOp` knows. */
export const opNames: readonly string[] = named.flatMap((op) => [op.name, ...(op.aliases ?? [])]);
