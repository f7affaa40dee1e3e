/** MS-SSIM between pictures of one set: do they all look alike? */
import { randomOf } from '../../../core/index.ts';
import type { HostKey } from '../../../selora/adapter.ts';
import { meanWithError, studentFactor } from '../../words/statistics.ts';
import { levelsFor, MS_SSIM_WEIGHTS, msSsim, type Planes } from '../measures/ssim.ts';
import type { Reading, SetMetric } from './metric.ts';

/** pairs of pictures looked at in each set */
const PAIRS = 200;

/** Disjoint pairs of a set in an order drawn from the key, so that their similarities are independent. */
export function disjointPairs(n: number, key: HostKey): readonly (readonly [number, number])[] {
  const order = randomOf(key).shuffle(Array.from({ length: n }, (_, i) => i));
  return Array.from({ length: Math.min(PAIRS, Math.floor(n / 2)) }, (_, k) => [order[2 * k]!, order[2 * k + 1]!]);
}

function similarity(
  grey: readonly Planes[],
  key: HostKey,
): { readonly value: number; readonly error: number; readonly n: number } {
  const levels = Math.min(...grey.map((p) => levelsFor(Math.min(p.width, p.height))));
  const weights = MS_SSIM_WEIGHTS.slice(0, levels);
  const total = weights.reduce((a, b) => a + b, 0);
  const pairs = disjointPairs(grey.length, key);
  const values = pairs.map(([i, j]) =>
    msSsim(
      grey[i]!,
      grey[j]!,
      { range: 255 },
      weights.map((w) => w / total),
    ),
  );
  const { mean, error } = meanWithError(values);
  return { value: mean, error, n: pairs.length };
}
const sizesOf = (grey: readonly Planes[]) => new Set(grey.map(({ width, height }) => `${width}x${height}`));

export const diversity: SetMetric = {
  name: 'diversity',
  title: 'Diversity',
  doc: 'MS-SSIM of pairs of pictures within a set: should be as among real ones; higher means alike',
  source: 'Wang, Simoncelli and Bovik, Multiscale Structural Similarity (2003); Odena et al. (2017) for the use',
  least: 4,
  compute({ real, fake, key }) {
    const readings: Reading[] = [];
    const cautions: string[] = [];
    for (const { name, grey } of [fake, real]) {
      const sizes = sizesOf(grey);
      const side = Math.min(...grey.map((p) => Math.min(p.width, p.height)));
      if (sizes.size > 1 || levelsFor(side) === 0) {
        cautions.push(
          sizes.size > 1
            ? `MS-SSIM of the ${name} pictures was left out: they have ${sizes.size} sizes.`
            : `MS-SSIM of the ${name} pictures was left out: sides of ${side} pixels are below its window of 11.`,
        );
        continue;
      }
      const { value, error, n } = similarity(grey, key);
      const half = error * studentFactor(n - 1);
      readings.push({
        label: `MS-SSIM among ${name} pictures`,
        value,
        ...(Number.isFinite(half) ? { interval: [value - half, value + half] as const } : {}),
        note: `95% of a mean over ${n} disjoint pairs, ${levelsFor(side)} of 5 levels`,
      });
    }
    return { readings, cautions };
  },
};
