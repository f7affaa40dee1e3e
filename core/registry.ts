/** The only list of all ops: the test battery, `explain` and the documentation walk it. */
import { attentionGradOp, attentionOp } from './fused/attention.ts';
import { normGradOp, normOp } from './fused/norm.ts';
import { softmaxOp } from './fused/softmax.ts';
import type { Op } from './ir/tensor.ts';
import { castOp } from './ops/cast.ts';
import { concatOp } from './ops/concat.ts';
import { aliasOp, barrierOp, stopGradientOp } from './ops/control.ts';
import { convInputOp, convKernelOp, convOp } from './ops/conv.ts';
import { dotOp } from './ops/dot.ts';
import { table } from './ops/elementwise.ts';
import { fullOp, iotaOp } from './ops/fill.ts';
import { gatherOp, scatterAddOp } from './ops/gather.ts';
import { fromHalfOp } from './ops/half.ts';
import { expandOp, flipOp, permuteOp, reshapeOp } from './ops/layout.ts';
import { powOp } from './ops/pow.ts';
import { randomBitsOp } from './ops/random.ts';
import { maxOp, sumOp } from './ops/reduce.ts';
import { padOp, sliceOp } from './ops/slice.ts';
import { checkpointOp } from './transforms/checkpoint.ts';

const all: readonly unknown[] = [
  ...Object.values(table),
  castOp,
  fromHalfOp,
  sumOp,
  maxOp,
  reshapeOp,
  permuteOp,
  expandOp,
  sliceOp,
  flipOp,
  padOp,
  concatOp,
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
  barrierOp,
  powOp,
  softmaxOp,
  normOp,
  normGradOp,
  attentionOp,
  attentionGradOp,
  checkpointOp,
];
/** Every op by its name.  @example registry.get('dot') */
export const registry: ReadonlyMap<string, Op> = new Map((all as readonly Op[]).map((op) => [op.name, op]));

const plain = (name: string): string => name.toLowerCase().replace(/[_\s-]/g, '');
const byAlias = new Map([...registry.values()].flatMap((op) => (op.aliases ?? []).map((a) => [plain(a), op] as const)));
/** The op of a name, or of another name people look it up by (`layer_norm`). */
export const findOp = (name: string): Op | undefined => registry.get(name) ?? byAlias.get(plain(name));
