/** Nearest real picture of every fake: is anything copied? */
import { wilson } from '../../words/statistics.ts';
import { nearestOf, radii } from '../measures/neighbours.ts';
import type { SetMetric } from './metric.ts';

/** pairs shown */
const SHOWN = 4;

export const copies: SetMetric = {
  name: 'copies',
  title: 'Nearest real pictures',
  doc: 'fakes closer to a real picture than 99 of 100 real ones are to another real one; lower is better',
  source: 'this repository',
  least: 4,
  compute({ real, fake }) {
    const own = radii(real.features, 1).sort();
    const threshold = own[Math.floor(own.length * 0.01)]!;
    const found = nearestOf(fake.features, real.features).map(({ index, distance }, i) => ({
      fake: i,
      real: index,
      distance,
    }));
    const below = found.filter(({ distance }) => distance < threshold).length;
    return {
      readings: [
        {
          label: 'fakes closer than real pictures come to each other',
          value: below / found.length,
          interval: wilson(below, found.length),
          note: `Wilson’s 95%; ${below} of ${found.length}, by features`,
        },
      ],
      pairs: [...found].sort((a, b) => a.distance - b.distance).slice(0, SHOWN),
      cautions: [
        'Copies are looked for among the real pictures given here: those that a model was trained on must be among them.',
      ],
    };
  },
};
