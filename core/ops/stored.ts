/** Types for storage only (`widenedBy` in ir/dtype.ts): the op that makes f32 of each, the one way to their values. */
import { dtypes, isStored, type StoredDType } from '../ir/dtype.ts';
import { type Attrs, bind, type Primitive, type Tensor } from '../ir/tensor.ts';
import { fromHalfOp } from './half.ts';
import { fromNf4Op } from './nf4.ts';

const wideningOps: Readonly<Record<(typeof dtypes)[StoredDType]['widenedBy'], Primitive<Attrs>>> = {
  fromHalf: fromHalfOp,
  fromNf4: fromNf4Op,
};

/** A weight as the model computes with it: stored values as f32, anything else as it is. */
export const asFloat = (x: Tensor): Tensor =>
  isStored(x.dtype) ? bind(wideningOps[dtypes[x.dtype].widenedBy], [x], {}) : x;
