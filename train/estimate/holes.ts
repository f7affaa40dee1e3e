/** Trees of a run's tensors without values: what the compiled programs are planned from before anything is read. */
import { type DType, mapTree, type Tensor, type Tree } from '../../core/index.ts';
import { hole } from '../../core/ir/tensor.ts';
import { type Param, type Params, toModelShape } from '../../nn/index.ts';
import type { Linears } from '../model/pipeline.ts';
import {
  type Batch,
  type Candidates,
  type Hyper,
  mapModules,
  type PerNetwork,
  type Slot,
  type State,
} from '../step/step.ts';

const f32 = (...shape: number[]): Tensor => hole({ shape, dtype: 'f32' });

/** The parameters of a specification as `load` makes them: matrices in `weights`, biases and norms in f32. */
export const parameterHoles = <S extends Tree<Param>>(spec: S, weights: 'f16' | 'f32'): Params<S> =>
  mapTree((p: Param, path) => {
    const dtype: DType = p.shape.length > 1 ? weights : 'f32';
    return hole({ shape: toModelShape(p.shape), dtype }, path);
  }, spec) as unknown as Params<S>;

/** Adapters with their moments, all of one capacity per network. */
export const stateHoles = (linears: Linears, capacity: PerNetwork<number>): State =>
  mapModules(
    ([dOut, dIn]: readonly [number, number], _path, network): Slot => {
      const c = capacity[network];
      const [A, B] = [() => f32(dIn, c), () => f32(c, dOut)];
      return { A: A(), B: B(), mA: A(), vA: A(), mB: B(), vB: B(), age: f32(c) };
    },
    { unet: Object.fromEntries(linears.unet), text: Object.fromEntries(linears.text) },
  );

/** Columns and slots of an expansion test. */
export const candidateHoles = (state: State): Candidates =>
  mapModules(({ A }: Slot) => ({ K: f32(A.shape[0]!, 1), slot: f32(1, A.shape[1]!) }), state);

/** A batch of n latents [h, w, c] with texts of `length` ids in each of so many chunks. */
export const batchHoles = (
  n: number,
  [h, w, c]: readonly [number, number, number],
  length: number,
  chunks = 1,
): Batch => ({
  x: f32(n, h, w, c),
  t: f32(n),
  ids: hole({ shape: chunks === 1 ? [n, length] : [n, chunks, length], dtype: 'i32' }),
  target: f32(n, h, w, c),
  weight: f32(n),
});
export const hyperHoles = (): Hyper => ({ unet: f32(), text: f32() });
