/** What a method may look at before the first step: the gradient of the loss by the frozen weights. */
import { add, type Backend, evaluate, mul, read, type Tensor } from '../../core/index.ts';
import { full } from '../../selora/methods/full.ts';
import type { HostTensor } from '../../selora/methods/method.ts';
import { mapModules, mapNetworks, type PerModule } from '../../selora/networks.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { adamDefaults } from '../optimise/optimizer.ts';
import type { LossOptions } from './gradients.ts';
import { slotOf } from './ranks.ts';
import { type Batch, createSteps, type Frozen } from './step.ts';

/**
 * ∂loss/∂W[d_out, d_in] of every place, the mean over batches, on the host. A convolution's d_in counts [in, kh, kw].
 * Cost: a forward and a backward pass for each batch; memory: a number for every weight of the places, here and there.
 */
export async function weightGradients(
  o: Pick<LossOptions<never>, 'configs' | 'checkpointBlocks'> & { readonly backend: Backend },
  places: ModelPlaces,
  frozen: Frozen,
  batches: readonly Batch[],
): Promise<PerModule<HostTensor>> {
  const programs = createSteps({ ...o, method: full as never, settings: {}, adam: adamDefaults, clip: 0 });
  const ranks = mapNetworks((of) => Object.fromEntries([...of.keys()].map((path) => [path, 1])), places);
  const start = mapNetworks((of, n) => full.init(of, ranks[n], [0, 0], {}), places);
  const fields = full.fields([1, 1], 1, {});
  const state = evaluate(mapModules((p: { readonly D: Tensor }) => slotOf(p, fields, 1), start) as never, o.backend);
  let total: PerModule<{ readonly D: Tensor }> | undefined;
  const share = 1 / batches.length;
  for (const batch of batches) {
    const { g } = programs.part(state as never, frozen, batch) as unknown as {
      readonly g: PerModule<{ readonly D: Tensor }>;
    };
    total = evaluate(
      mapModules(({ D }: { readonly D: Tensor }, path, n) => {
        const one = mul(D, share);
        return { D: total ? add(total[n][path]!.D, one) : one };
      }, g) as never,
      o.backend,
    ) as PerModule<{ readonly D: Tensor }>;
  }
  programs.trim();
  const host = async (of: { readonly [path: string]: { readonly D: Tensor } }) => {
    const out: Record<string, HostTensor> = {};
    for (const [path, { D }] of Object.entries(of))
      out[path] = { shape: D.shape, data: Float32Array.from(await read(D)) };
    return out;
  };
  return { unet: await host(total!.unet), text: await host(total!.text) };
}
