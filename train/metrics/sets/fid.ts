/** FID: the Fréchet distance of two sets' features. */
import { frechet, momentsOf } from '../measures/frechet.ts';
import { halves, type SetMetric } from './metric.ts';

export const fid: SetMetric = {
  name: 'fid',
  title: 'Fréchet distance',
  doc: 'distance of the two clouds of features, as Gaussians; lower is better',
  source: 'Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (2017)',
  least: 4,
  compute({ real, fake, autoencoder }) {
    const [a, b] = [momentsOf(real.features), momentsOf(fake.features)];
    const [even, odd] = halves(real.features).map(momentsOf);
    const floors = [
      { label: `real against real (halves of ${even!.n} and ${odd!.n})`, value: frechet(even!, odd!) },
      ...(autoencoder && autoencoder.features.length >= 2
        ? [{ label: 'autoencoder alone', value: frechet(a, momentsOf(autoencoder.features)) }]
        : []),
    ];
    const least = Math.min(a.n, b.n);
    return {
      readings: [
        {
          label: `FID of ${a.dims} features`,
          value: frechet(a, b),
          floors,
          note: 'no interval: it is biased upwards by few pictures, and resampling adds to the bias',
        },
      ],
      cautions: [
        ...(least <= a.dims
          ? [
              `FID of ${a.dims} features from ${least} pictures: a covariance of ${a.dims} dimensions needs more than ${a.dims} of them. The number is mostly bias; compare it with nothing but sets of the same sizes.`,
            ]
          : []),
        'FID falls with the number of pictures alone: only numbers from as many pictures can be compared, and halves of the real ones have half as many.',
      ],
    };
  },
};
