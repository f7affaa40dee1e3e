/** What a whole model is, and what is put on it. */
import type { TextEncoder } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import type { TextEncoderConfig, UNetConfig, VaeConfig } from '../../models/config.ts';
import type { Schedule } from '../../models/schedulers/index.ts';
import type { UNet } from '../../models/unet/index.ts';
import type { Vae } from '../../models/vae/index.ts';
import type { Adapters } from '../../selora/adapter.ts';
import type { Places } from '../../selora/methods/method.ts';
import type { PerNetwork } from '../step/state.ts';

/** A whole model: parameters (adapters attached or not), configurations, tokenizer, noise schedule. */
export interface Pipeline {
  readonly unet: UNet;
  readonly vae: Vae;
  readonly text: TextEncoder;
  readonly configs: { readonly unet: UNetConfig; readonly vae: VaeConfig; readonly text: TextEncoderConfig };
  readonly tokenizer: Tokenizer;
  readonly schedule: Schedule;
}

/** Module path → PyTorch's weight shape of the layers of each network that adapters can be on, in the order of the model. */
export type ModelPlaces = PerNetwork<Places>;

/** The adapters of a file in the form the models take: y = x·Wᵀ + scale·(x·A)·B. */
export type LoadedAdapters = PerNetwork<Adapters> & { readonly scale: number };
