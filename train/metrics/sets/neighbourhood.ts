/** Precision, recall, density, coverage: are the fakes real-looking, and is everything there? */
import { wilson } from '../../words/statistics.ts';
import { neighbourhood as shares } from '../measures/neighbours.ts';
import type { SetMetric } from './metric.ts';

/** neighbours that a ball reaches to */
const K = 5;

export const neighbourhood: SetMetric = {
  name: 'neighbourhood',
  title: 'Precision, recall, density, coverage',
  doc: `shares by balls that reach to the ${K}th neighbour; higher is better, density may exceed 1`,
  source: 'Kynkäänniemi et al. (2019); Naeem et al., Reliable Fidelity and Diversity Metrics (2020)',
  least: K + 1,
  compute({ real, fake }) {
    const found = shares(real.features, fake.features, K);
    const of = (value: number, n: number) => wilson(Math.round(value * n), n);
    const note = 'Wilson’s 95% of a share; the balls are taken for given';
    return {
      readings: [
        { label: 'precision', value: found.precision, interval: of(found.precision, fake.features.length), note },
        { label: 'recall', value: found.recall, interval: of(found.recall, real.features.length), note },
        { label: 'density', value: found.density, note: 'no interval: a mean of counts that hang together' },
        { label: 'coverage', value: found.coverage, interval: of(found.coverage, real.features.length), note },
      ],
    };
  },
};
