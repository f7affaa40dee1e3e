/** What a whole model is, and what is put on it. */
import type { TextEncoder } from '../../models/clip/text-encoder.ts';
import type { Tokenizer } from '../../models/clip/tokenizer.ts';
import type { TextEncoderConfig, UNetConfig, VaeConfig } from '../../models/config.ts';
import type { Schedule } from '../../models/schedulers/index.ts';
import type { UNet } from '../../models/unet/index.ts';
import type { Vae } from '../../models/vae/index.ts';
import type { Adapters } from '../../selora/adapter.ts';
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

/** Module path → [d_out, d_in] (PyTorch's weight shape) of the linear layers of each network. */
export type Linears = PerNetwork<ReadonlyMap<string, readonly [number, number]>>;

/** The adapters of a file in the form the models take: y = x·Wᵀ + scale·(x·A)·B. */
export type LoadedAdapters = PerNetwork<Adapters> & { readonly scale: number };
