/** The only list of all ops: the test battery, `explain` and the documentation walk it. */
import { attentionGradOp, attentionOp } from '../fused/attention.ts';
import {
  groupNormGradAllOp,
  groupNormGradOp,
  groupNormOp,
  layerNormGradAllOp,
  layerNormGradOp,
  layerNormOp,
} from '../fused/norm.ts';
import { softmaxOp } from '../fused/softmax.ts';
import type { Op } from '../ir/tensor.ts';
import { checkpointOp } from '../transforms/checkpoint.ts';
import { castOp } from './cast.ts';
import { concatOp } from './concat.ts';
import { aliasOp, barrierOp, stopGradientOp } from './control.ts';
import { convInputOp, convKernelOp, convOp } from './conv.ts';
import { dotOp } from './dot.ts';
import { table } from './elementwise.ts';
import { fullOp, iotaOp } from './fill.ts';
import { gatherOp, scatterAddOp } from './gather.ts';
import { fromHalfOp } from './half.ts';
import { expandOp, flipOp, permuteOp, reshapeOp } from './layout.ts';
import { randomBitsOp } from './random.ts';
import { maxOp, sumOp } from './reduce.ts';
import { padOp, sliceOp } from './slice.ts';

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
  softmaxOp,
  layerNormOp,
  layerNormGradOp,
  layerNormGradAllOp,
  groupNormOp,
  groupNormGradOp,
  groupNormGradAllOp,
  attentionOp,
  attentionGradOp,
  checkpointOp,
];
export const registry: ReadonlyMap<string, Op> = new Map((all as readonly Op[]).map((op) => [op.name, op]));
