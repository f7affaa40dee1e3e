/** Trees of a run's tensors without values: what the compiled programs are planned from before anything is read. */
import { mapTree, type Tensor, type Tree } from '../../core/index.ts';
import { hole } from '../../core/ir/tensor.ts';
import { storedAs, type WeightType } from '../../models/spec.ts';
import { type Param, type Params as Parameters, toModelShape } from '../../nn/index.ts';
import { type Field, type Fields, momentFields, type Params, type Place } from '../../selora/methods/method.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import type { Chosen } from '../step/ranks.ts';
import { type Batch, type Hyper, mapModules, type PerModule, type Ranks, type Slot, type State } from '../step/step.ts';

const f32 = (...shape: number[]): Tensor => hole({ shape, dtype: 'f32' });

/** The parameters of a specification as `load` makes them. */
export const parameterHoles = <S extends Tree<Param>>(spec: S, weights: WeightType): Parameters<S> =>
  mapTree(
    (p: Param, path) => hole({ shape: toModelShape(p.shape), dtype: storedAs(p, weights) }, path),
    spec,
  ) as unknown as Parameters<S>;

const emptyTree = (fields: Fields) => mapTree<Fields, Params>(({ shape }: Field) => f32(...shape), fields);

/** What a method trains with its moments, each module with room for so many ranks. */
export const stateHoles = ({ method, settings }: Chosen, linears: ModelPlaces, capacity: Ranks): State =>
  mapModules((place: Place, path, network): Slot => {
    const c = capacity[network][path]!;
    const fields = method.fields(place, c, settings);
    const moments = () => emptyTree(momentFields(fields));
    return { p: emptyTree(fields), m: moments(), v: moments(), age: f32(c) };
  }, modulesOf(linears));

/** What a test puts into every module. */
export const trialHoles = ({ method, settings }: Chosen, linears: ModelPlaces, capacity: Ranks): PerModule<Params> =>
  mapModules(
    (place: Place, path, n) => emptyTree(method.growth!.trial(place, capacity[n][path]!, settings)),
    modulesOf(linears),
  );
const modulesOf = ({ unet, text }: ModelPlaces): PerModule<Place> => ({
  unet: Object.fromEntries(unet),
  text: Object.fromEntries(text),
});

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
const keyHole = () => hole({ shape: [2], dtype: 'u32' });
export const hyperHoles = ({ method }: Pick<Chosen, 'method'>): Hyper => ({
  unet: f32(),
  text: f32(),
  ...(method.after ? { made: { step: f32(), steps: f32(), key: keyHole(), shared: keyHole() } } : {}),
});
