/** KID: the kernel distance of two sets' features, without bias. */
import { kernelDistance, kernelInterval, kernelsOf } from '../measures/kernel.ts';
import { halves, type SetMetric } from './metric.ts';

/** kernel values looked at in all resamples */
const MOST = 4e8;

export const kid: SetMetric = {
  name: 'kid',
  title: 'Kernel distance',
  doc: 'squared distance of the two clouds of features by a cubic kernel, unbiased; lower is better, around 0 where both are alike',
  source: 'Bińkowski et al., Demystifying MMD GANs (2018)',
  least: 4,
  compute({ real, fake, autoencoder, key }) {
    const kernels = kernelsOf(real.features, fake.features);
    const pairs = (real.features.length + fake.features.length) ** 2;
    const resamples = Math.max(100, Math.min(1000, Math.floor(MOST / pairs)));
    const [low, high] = kernelInterval(kernels, { key, resamples });
    const [even, odd] = halves(real.features);
    return {
      readings: [
        {
          label: 'KID',
          value: kernelDistance(kernels),
          interval: [low, high],
          note: `95%, bootstrap over pictures, ${resamples} resamples`,
          floors: [
            { label: 'real against real (halves)', value: kernelDistance(kernelsOf(even, odd)) },
            ...(autoencoder && autoencoder.features.length >= 2
              ? [
                  {
                    label: 'autoencoder alone',
                    value: kernelDistance(kernelsOf(real.features, autoencoder.features)),
                  },
                ]
              : []),
          ],
        },
      ],
      ...(low <= 0 && high >= 0
        ? { cautions: ['The interval of KID holds 0: by these features the two sets cannot be told apart.'] }
        : {}),
    };
  },
};
