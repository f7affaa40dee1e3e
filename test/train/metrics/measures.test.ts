/** Distances and similarities against torch-fidelity, clean-fid, prdc, pytorch-msssim and closed forms (`golden/metrics`). */
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { hostKey, normalNumbers } from '../../../selora/adapter.ts';
import { clipScore } from '../../../train/metrics/measures/clip-score.ts';
import { type Features, frechet, momentsOf } from '../../../train/metrics/measures/frechet.ts';
import {
  biasedKernelDistance,
  kernelDistance,
  kernelInterval,
  kernelsOf,
} from '../../../train/metrics/measures/kernel.ts';
import { nearestOf, neighbourhood, radii } from '../../../train/metrics/measures/neighbours.ts';
import { levelsFor, msSsim, type Planes, ssim } from '../../../train/metrics/measures/ssim.ts';
import { type GoldenTensors, need, readGoldenJson, readGoldenTensors } from '../../../train/verify/golden.ts';

const folder = path.join(import.meta.dirname, '../../golden/metrics');
const number = z.number();
const schema = z.object({
  fid: z.object({ cases: z.record(z.string(), z.looseObject({ frechet_eigen: number, d: number, n1: number })) }),
  kid: z.object({
    cases: z.record(
      z.string(),
      z.looseObject({
        n1: number,
        n2: number,
        each: z.array(number),
        mean: number,
        std: number,
        unbiased_all_samples: number,
      }),
    ),
  }),
  prdc: z.object({ cases: z.record(z.string(), z.record(z.string(), z.looseObject({ precision: number, recall: number, density: number, coverage: number }))) }), // biome-ignore format: one line
  ssim: z.object({ cases: z.record(z.string(), z.record(z.string(), z.array(number))) }),
  clip: z.object({ per_pair_100: z.array(number), mean_100_clamped: number, 'mean_2.5_clamped': number, torchmetrics: number }), // biome-ignore format: one line
});
let json: z.output<typeof schema>;
let tensors: GoldenTensors;
beforeAll(async () => {
  json = await readGoldenJson(folder, 'measures.json', schema);
  tensors = await readGoldenTensors(path.join(folder, 'measures.safetensors'));
});
const rows = (name: string): Float64Array[] => {
  const { data, shape } = need(tensors, name);
  const [n, d] = shape as [number, number];
  return Array.from({ length: n }, (_, i) => data.subarray(i * d, (i + 1) * d));
};
const near = (got: number, want: number, by: number) => expect(Math.abs(got - want)).toBeLessThanOrEqual(by);
const drawn = (seed: number, n: number, d: number, shift = 0): Features => {
  const all = normalNumbers(hostKey(seed), n * d);
  return Array.from({ length: n }, (_, i) => all.subarray(i * d, (i + 1) * d).map((x) => x + shift));
};

describe('Fréchet distance', () => {
  test('is that of the reference, with fewer vectors than dimensions, too', () => {
    for (const [name, { frechet_eigen: want, d, n1 }] of Object.entries(json.fid.cases)) {
      const got = frechet(momentsOf(rows(`${name}.features_1`)), momentsOf(rows(`${name}.features_2`)));
      // roots of eigenvalues that are 0 but for rounding: the reference itself is off by as much there
      near(got, want, n1 <= d ? 2e-6 : 1e-11);
    }
  });
  test('of a set with itself is 0, and it is symmetric', () => {
    for (const name of ['d64', 'd192']) {
      const [a, b] = [momentsOf(rows(`${name}.features_1`)), momentsOf(rows(`${name}.features_2`))];
      near(frechet(a, a), 0, 1e-11);
      near(frechet(a, b), frechet(b, a), 1e-11);
    }
  });
  test('of moments told in full it is the closed form: shifted by c·1 it is d·c², scaled by s it is (1 − s)²·tr S', () => {
    const x = drawn(1, 40, 6);
    near(frechet(momentsOf(x), momentsOf(x.map((v) => Float64Array.from(v, (u) => u + 0.5)))), 6 * 0.25, 1e-12);
    const m = momentsOf(x);
    const scaled = momentsOf(x.map((v) => Float64Array.from(v, (u, j) => m.mean[j]! + 3 * (u - m.mean[j]!))));
    near(frechet(m, scaled), 4 * m.trace, 1e-11);
  });
  test('too few or unequal vectors are refused', () => {
    expect(() => momentsOf(drawn(1, 1, 3))).toThrow('1 feature vectors');
    expect(() => frechet(momentsOf(drawn(1, 4, 3)), momentsOf(drawn(1, 4, 2)))).toThrow('features of 3 and 2');
  });
});

describe('kernel distance', () => {
  test('over subsets and over all samples is that of torch-fidelity and clean-fid', () => {
    for (const [name, info] of Object.entries(json.kid.cases)) {
      const [x, y] = [rows(`kid.${name}.1`), rows(`kid.${name}.2`)];
      near(kernelDistance(kernelsOf(x, y)), info.unbiased_all_samples, 1e-12);
      const [i1, i2] = [rows(`kid.${name}.index1`), rows(`kid.${name}.index2`)];
      for (const [k, want] of info.each.entries()) {
        const of = (set: Features, index: Float64Array) => Array.from(index, (i) => set[i]!);
        near(kernelDistance(kernelsOf(of(x, i1[k]!), of(y, i2[k]!))), want, 1e-11);
      }
    }
  });
  test('is unbiased: over 200 pairs of sets from one distribution its mean is 0 within three standard errors, the biased one’s is not', () => {
    const values: number[] = [];
    const biased: number[] = [];
    for (let k = 0; k < 200; k++) {
      const kernels = kernelsOf(drawn(2 * k, 12, 4), drawn(2 * k + 1, 9, 4));
      values.push(kernelDistance(kernels));
      biased.push(biasedKernelDistance(kernels));
    }
    const mean = (v: readonly number[]) => v.reduce((a, b) => a + b, 0) / v.length;
    const error = (v: readonly number[]) => Math.sqrt(v.reduce((s, x) => s + (x - mean(v)) ** 2, 0) / (v.length - 1) / v.length); // biome-ignore format: one line
    expect(Math.abs(mean(values))).toBeLessThan(3 * error(values));
    expect(values.filter((v) => v < 0).length).toBeGreaterThan(60);
    expect(mean(biased)).toBeGreaterThan(10 * error(biased));
  });
  test('its interval holds the value of a population in about 95 of 100 draws', () => {
    // N(0, 1) against N(.4, 1) in two dimensions: the population's value from 600 vectors each
    const truth = kernelDistance(kernelsOf(drawn(1001, 600, 2), drawn(1002, 600, 2, 0.4)));
    let held = 0;
    for (let k = 0; k < 60; k++) {
      const [low, high] = kernelInterval(kernelsOf(drawn(5000 + 2 * k, 30, 2), drawn(5001 + 2 * k, 30, 2, 0.4)), { key: hostKey(k), resamples: 200 }); // biome-ignore format: one line
      expect(low).toBeLessThan(high);
      if (low <= truth && truth <= high) held++;
    }
    expect(held).toBeGreaterThan(48);
  });
});

test('precision, recall, density, coverage and nearest neighbours are those of prdc', () => {
  for (const [name, byK] of Object.entries(json.prdc.cases)) {
    const [real, fake] = [rows(`prdc.${name}.real`), rows(`prdc.${name}.fake`)];
    for (const [k, want] of Object.entries(byK)) {
      const got = neighbourhood(real, fake, Number(k.slice(1)));
      for (const key of ['precision', 'recall', 'density', 'coverage'] as const) near(got[key], want[key], 1e-12);
    }
    const radius = need(tensors, `prdc.${name}.real_radius_k5`).data;
    for (const [i, r] of radii(real, 5).entries()) near(r, radius[i]!, 1e-12);
    const [index, distances] = [need(tensors, `prdc.${name}.nearest_real`).data, need(tensors, `prdc.${name}.nearest_distance`).data]; // biome-ignore format: one line
    for (const [i, found] of nearestOf(fake, real).entries()) {
      expect(found.index).toBe(index[i]);
      near(found.distance, distances[i]!, 1e-12);
    }
  }
  expect(() => neighbourhood(drawn(1, 5, 2), drawn(2, 9, 2), 5)).toThrow('5 feature vectors, expected more than 5');
});

test('SSIM and MS-SSIM are those of pytorch-msssim', () => {
  const pictures = (name: string): Planes[] => {
    const { data, shape } = need(tensors, name);
    const [n, channels, height, width] = shape as [number, number, number, number];
    const size = channels * height * width;
    return Array.from({ length: n }, (_, i) => ({ width, height, channels, data: data.subarray(i * size, (i + 1) * size) })); // biome-ignore format: one line
  };
  for (const [name, want] of Object.entries(json.ssim.cases)) {
    const [x, y] = [pictures(`ssim.${name}.x`), pictures(`ssim.${name}.y`)];
    for (const [i, a] of x.entries()) {
      const b = y[i]!;
      near(ssim(a, b, { range: 255 }), want.ssim![i]!, 1e-12);
      near(ssim(a, a, { range: 255 }), 1, 1e-12);
      const plain = want.ms_ssim?.[i];
      if (plain !== undefined) near(msSsim(a, b, { range: 255 }), plain, 1e-12);
      const small = want['ms_ssim_win3_weights_0.3_0.3_0.4']?.[i];
      // sigma .8; the reference builds this window in float32, and variances are small differences of large numbers
      if (small !== undefined) near(msSsim(a, b, { range: 255, window: 3, sigma: 0.8 }, [0.3, 0.3, 0.4]), small, 1e-6);
    }
  }
  expect([levelsFor(10), levelsFor(11), levelsFor(128), levelsFor(175), levelsFor(176)]).toEqual([0, 1, 4, 4, 5]);
  expect(() => ssim({ width: 8, height: 8, channels: 1, data: new Uint8Array(64) }, { width: 8, height: 8, channels: 1, data: new Uint8Array(64) }, { range: 255 })).toThrow('expected 11 or more'); // biome-ignore format: one line
});

test('CLIP score: each of the three numbers of that name', () => {
  const score = clipScore(rows('clip.image_embeds'), rows('clip.text_embeds'));
  for (const [i, want] of json.clip.per_pair_100.entries()) near(score.pairs[i]!, want, 1e-12);
  near(score.hundred, json.clip.mean_100_clamped, 1e-12);
  near(score.hessel, json.clip['mean_2.5_clamped'], 1e-12);
  near(score.meanFirst, json.clip.torchmetrics, 1e-12);
  expect(() => clipScore([[1, 0]], [])).toThrow('1 pictures and 0 texts');
});
