/** The trees of a run: what a method trains with its moments, frozen parameters, batches; and how to map over them. */
import { type Tensor, tensor } from '../../core/index.ts';
import type { TextEncoder } from '../../models/clip/text-encoder.ts';
import type { UNet } from '../../models/unet/index.ts';
import { foldKey, hostKey } from '../../selora/adapter.ts';
import type { Made, Method, Params, Slot } from '../../selora/methods/method.ts';
import { mapModules, type PerModule, type PerNetwork } from '../../selora/networks.ts';

export type { Ranks, Slot } from '../../selora/methods/method.ts';
export {
  mapModules,
  mapNetworks,
  moduleName,
  type Network,
  networks,
  type PerModule,
  type PerNetwork,
} from '../../selora/networks.ts';

/** every module with its moments */
export type State<P = Params> = PerModule<Slot<P>>;
/** frozen parameters */
export type Frozen = { readonly unet: UNet; readonly text: TextEncoder };

export type Batch = {
  /** noisy latents [b,h,w,c] */
  readonly x: Tensor;
  /** timesteps [b] */
  readonly t: Tensor;
  /** token ids [b,77], or in k chunks [b,k,77] */
  readonly ids: Tensor;
  /** text context [b,77,d], where the text encoder is not to be run */
  readonly context?: Tensor;
  /** ε or v, like x */
  readonly target: Tensor;
  /** loss weight of each sample [b] */
  readonly weight: Tensor;
};
/** learning rates; which update it is, for methods that ask */
export type Hyper = PerNetwork<Tensor> & { readonly made?: Omit<Made, 'rate'> };
/** What step k = 1, 2, … of a run of so many takes beside its batch. */
export const hyperOf = (
  method: Pick<Method, 'after'>,
  rates: PerNetwork<number>,
  seed: number,
  step: number,
  steps: number,
): Hyper => {
  const key = (...of: readonly string[]) => tensor(Uint32Array.from(foldKey(hostKey(seed), 'after', step, ...of)));
  return {
    unet: tensor(rates.unet),
    text: tensor(rates.text),
    ...(method.after ? { made: { step: tensor(step), steps: tensor(steps), key: key(), shared: key('shared') } } : {}),
  };
};

/** What is trained, without its moments. */
export const paramsOf = <P>(s: State<P>): PerModule<P> => mapModules(({ p }) => p, s);
