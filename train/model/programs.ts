/**
 * The programs of a model, each compiled in one place: they serve any parameters of the same shapes. Who trains, draws,
 * estimates or verifies takes them from here, so that all of them run the same kernels.
 */
import { type Backend, type Compiled, compile, exp, mul, type Tensor } from '../../core/index.ts';
import { type TextEncoder, textContext } from '../../models/clip/text-encoder.ts';
import type { TextEncoderConfig, UNetConfig, VaeConfig } from '../../models/config.ts';
import { type UNet, unet } from '../../models/unet/index.ts';
import { type Vae, vaeDecode, vaeEncode } from '../../models/vae/index.ts';

/** pixels along a side for one latent: 8 for SD 1.5 */
export const vaeFactor = (config: Pick<VaeConfig, 'block_out_channels'>): number =>
  2 ** (config.block_out_channels.length - 1);

/**
 * Pictures [n, h, w, 3] in [−1, 1] → mean and deviation of their latents, scaling factor applied. The pictures are taken
 * over: of thousands of them none waits for the collector.
 */
export const encodeProgram = (
  backend: Backend,
  config: VaeConfig,
): Compiled<[p: Vae, x: Tensor], { readonly mean: Tensor; readonly std: Tensor }> =>
  compile(
    (p: Vae, x: Tensor) => {
      const [q, s] = [vaeEncode(p, config, x), config.scaling_factor];
      return { mean: mul(q.mean, s), std: mul(exp(mul(q.logvar, 0.5)), s) };
    },
    { backend, name: 'encode', donate: [1] },
  );

/** Token ids → text context [n, t, d]. */
export const contextProgram = (
  backend: Backend,
  config: TextEncoderConfig,
): Compiled<[p: TextEncoder, ids: Tensor], Tensor> =>
  compile((p: TextEncoder, ids: Tensor) => textContext(p, config, ids), { backend, name: 'contexts' });

/** Noisy latents, timesteps, contexts → the U-Net's prediction. */
export const denoiseProgram = (
  backend: Backend,
  config: UNetConfig,
): Compiled<[p: UNet, x: Tensor, t: Tensor, context: Tensor], Tensor> =>
  compile((p: UNet, x: Tensor, t: Tensor, context: Tensor) => unet(p, config, x, t, context), {
    backend,
    name: 'denoise',
  });

/** Scaled latents → pictures [n, h, w, 3]. */
export const decodeProgram = (backend: Backend, config: VaeConfig): Compiled<[p: Vae, z: Tensor], Tensor> =>
  compile((p: Vae, z: Tensor) => vaeDecode(p, config, mul(z, 1 / config.scaling_factor)), { backend, name: 'decode' });
