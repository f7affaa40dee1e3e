/** Schedules and samplers against diffusers' numbers, closed forms and properties. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addNoise,
  createSampler,
  getVelocity,
  makeSchedule,
  parseSchedulerConfig,
  runSampler,
  SAMPLER_NAMES,
  type Sampler,
  type SamplerName,
  type SchedulerSettings,
  TIMESTEP_SPACINGS,
} from '../../models/schedulers/index.ts';
import { verifySamplers } from '../../train/verify/samplers.ts';
import { verifySchedulers } from '../../train/verify/schedulers.ts';
import { goldenDirectories, tally } from '../support/golden-cases.ts';

const SD = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', steps_offset: 1 } as const;
const scheduleOf = (settings: SchedulerSettings = {}) => makeSchedule(parseSchedulerConfig({ ...SD, ...settings }));
const random = (n: number, seed: number) =>
  Float64Array.from({ length: n }, (_, i) => 2 * Math.sin(12.9898 * (i + 1) * (seed + 1)) ** 3);

describe('against diffusers', () => {
  it.each(goldenDirectories('schedulers.json'))('schedulers of %s', async (directory) => {
    const { count, failed } = await tally(verifySchedulers(directory));
    expect(failed).toEqual([]);
    expect(count).toBe(37);
  });
  it.each(goldenDirectories('samplers.json'))('samplers of %s', async (directory) => {
    const { count, failed } = await tally(verifySamplers(directory));
    expect(failed).toEqual([]);
    expect(count).toBeGreaterThan(80);
  });

  it('notices one digit of one number of one trajectory', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'golden-'));
    try {
      cpSync('test/golden/schedulers.safetensors', join(folder, 'schedulers.safetensors'));
      const text = readFileSync('test/golden/schedulers.json', 'utf8');
      writeFileSync(join(folder, 'schedulers.json'), text.replace('"eta": 1.0', '"eta": 0.9999999'));
      const { failed } = await tally(verifySchedulers(folder));
      expect(failed).toHaveLength(1);
      expect(failed[0]).toMatch(/^ddim\.epsilon\.eta1\.10: /);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** ε of data that is the single point c: the model knows everything. */
const pointModel = (schedule: ReturnType<typeof scheduleOf>, c: number) => (x: ArrayLike<number>, t: number) => {
  const bar = schedule.alphasCumprod[t]!;
  return Float64Array.from(x, (value) => (value - Math.sqrt(bar) * c) / Math.sqrt(1 - bar));
};

it.each(['PNDMScheduler', 'DDIMScheduler', 'DPMSolverMultistepScheduler'])(
  'without timestep_spacing the default of the class that reads holds, whoever wrote (%s)',
  (_class_name) => {
    const schedule = scheduleOf({ _class_name, steps_offset: 1 });
    const timesteps = (name: string) => createSampler(name, schedule, 5).timesteps;
    // numpy's linspace(0, 999, 5) and linspace(0, 999, 6) without its first, as diffusers' classes call it
    expect(timesteps('euler')).toEqual([999, 749.25, 499.5, 249.75, 0]);
    expect(timesteps('euler-ancestral')).toEqual([999, 749.25, 499.5, 249.75, 0]);
    expect(timesteps('dpm-solver++')).toEqual([999, 799, 599, 400, 200]);
    expect(timesteps('ddim')).toEqual([801, 601, 401, 201, 1]);
    const given = scheduleOf({ _class_name, steps_offset: 1, timestep_spacing: 'leading' });
    expect(createSampler('euler', given, 5).timesteps).toEqual([801, 601, 401, 201, 1]);
  },
);

describe('closed forms', () => {
  it.each(['ddim', 'dpm-solver++', 'euler', 'ddpm'] as const)('%s reaches the only picture there is', async (name) => {
    const schedule = scheduleOf({ set_alpha_to_one: true, timestep_spacing: 'leading' }); // whole timesteps
    const sampler = createSampler(name, schedule, 7);
    const end = await runSampler(sampler, pointModel(schedule, 0.7), random(10, 1), {
      noise: (k) => random(10, k + 2),
    });
    for (const value of end) expect(value).toBeCloseTo(0.7, 8);
  });

  /**
   * Data N(0, s²): x_t has variance ᾱs² + 1−ᾱ and the flow keeps x_t/σ(x_t), so the exact end is known. Halving the step
   * must cut the error by 2^order.
   */
  it.each([
    ['euler', {}, 2],
    ['dpm-solver++', { order: 1 }, 2],
    ['dpm-solver++', { order: 2 }, 4],
    ['dpm-solver++', { order: 2, solver: 'heun' }, 4],
  ] as const)('%s %o has the order it claims (factor %d)', async (name, options, factor) => {
    const schedule = scheduleOf({ timestep_spacing: 'linspace', steps_offset: 0 });
    const s = 0.6;
    const errorOf = async (steps: number): Promise<number> => {
      // Karras spacing and a small non-zero end keep all steps of the same kind, so that the order shows.
      const sampler = createSampler(name, schedule, steps, { ...options, karras: true, finalSigma: 'sigma_min' });
      const sigmas = sampler.sigmas!;
      const inSigmaSpace = name === 'euler';
      const last = inSigmaSpace ? sigmas[sigmas.length - 2]! : sigmas[sigmas.length - 1]!;
      let x = Float64Array.of(1);
      let state = sampler.start;
      for (let k = 0; k < (inSigmaSpace ? steps - 1 : steps); k++) {
        const sigma = sigmas[k]!;
        const scale = inSigmaSpace ? 1 : Math.sqrt(sigma ** 2 + 1);
        const epsilon = (x[0]! * scale * sigma) / (s ** 2 + sigma ** 2);
        const [next, sample] = sampler.step(state, Float64Array.of(epsilon), x);
        state = next;
        x = sample as Float64Array<ArrayBuffer>;
      }
      const spread = (sigma: number) => Math.sqrt((s ** 2 + sigma ** 2) / (inSigmaSpace ? 1 : sigma ** 2 + 1));
      return Math.abs(x[0]! - spread(last) / spread(sigmas[0]!));
    };
    const ratio = (await errorOf(100)) / (await errorOf(200));
    expect(ratio).toBeGreaterThan(0.8 * factor);
    expect(ratio).toBeLessThan(1.25 * factor);
  });

  it('DDIM with η = 1 is DDPM', async () => {
    const schedule = scheduleOf({ set_alpha_to_one: true });
    const run = (name: SamplerName) =>
      runSampler(createSampler(name, schedule, 20, { eta: 1 }), (x) => x.map((v) => 0.3 * v), random(6, 3), {
        noise: (k) => random(6, k),
      });
    const [a, b] = [await run('ddim'), await run('ddpm')];
    for (const [i, value] of a.entries()) expect(value).toBeCloseTo(b[i]!, 8);
  });

  it('x₀ and ε come back from x_t and v', () => {
    const schedule = scheduleOf();
    const [x0, e, t] = [random(12, 1), random(12, 2), [3, 500, 999]];
    const [xt, v] = [addNoise(schedule, x0, e, t), getVelocity(schedule, x0, e, t)];
    for (let i = 0; i < 12; i++) {
      const bar = schedule.alphasCumprod[t[Math.floor(i / 4)]!]!;
      expect(Math.sqrt(bar) * xt[i]! - Math.sqrt(1 - bar) * v[i]!).toBeCloseTo(x0[i]!, 12);
      expect(Math.sqrt(1 - bar) * xt[i]! + Math.sqrt(bar) * v[i]!).toBeCloseTo(e[i]!, 12);
    }
  });

  it('zero terminal SNR: nothing of the signal is left at the end, the start is unchanged', () => {
    for (const beta_schedule of ['linear', 'scaled_linear'] as const) {
      const plain = scheduleOf({ beta_schedule });
      const zero = scheduleOf({ beta_schedule, rescale_betas_zero_snr: true });
      expect(zero.alphasCumprod[999]).toBe(0);
      expect(zero.alphasCumprod[0]).toBeCloseTo(plain.alphasCumprod[0]!, 14);
      expect(zero.alphasCumprod.every((a, t) => t === 0 || a < zero.alphasCumprod[t - 1]!)).toBe(true);
    }
  });

  it.each(SAMPLER_NAMES)('zero terminal SNR: %s gives numbers from any number of steps, or refuses', async (name) => {
    const schedule = scheduleOf({
      prediction_type: 'v_prediction',
      rescale_betas_zero_snr: true,
      timestep_spacing: 'trailing',
    });
    for (const steps of [1, 2, 3, 20, 1000]) {
      if (name === 'pndm') {
        expect(() => createSampler(name, schedule, steps)).toThrow(/^pndm: .*timestep 999.*such as ddim$/);
        continue;
      }
      const out = await runSampler(createSampler(name, schedule, steps), (x) => x.map((v) => 0.3 * v), random(4, 3), {
        noise: (k) => random(4, k),
      });
      expect(out.every(Number.isFinite)).toBe(true);
    }
  });

  it('the cosine schedule follows its curve where β is not capped', () => {
    const { alphasCumprod } = scheduleOf({ beta_schedule: 'squaredcos_cap_v2' });
    const curve = (u: number) => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2;
    for (const t of [0, 100, 500, 900]) expect(alphasCumprod[t]).toBeCloseTo(curve((t + 1) / 1000) / curve(0), 12);
  });
});

/** Runs a sampler with a model given as x₀ = ½x + 0.1 in the schedule's scale, expressed in any prediction type. */
async function runAs(
  prediction: 'epsilon' | 'v_prediction' | 'sample',
  name: SamplerName,
  spacing: 'leading' | 'trailing',
) {
  const schedule = scheduleOf({ prediction_type: prediction, timestep_spacing: spacing });
  const sampler = createSampler(name, schedule, 9);
  return runSampler(
    sampler,
    (x, t, call) => {
      // Samplers in σ call the model at their own noise level, which lies between two entries of the table.
      const bar = sampler.sigmas ? 1 / (sampler.sigmas[call]! ** 2 + 1) : schedule.alphasCumprod[t]!;
      const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
      return x.map((value) => {
        const x0 = 0.5 * value + 0.1;
        const e = (value - a * x0) / b;
        return prediction === 'sample' ? x0 : prediction === 'epsilon' ? e : a * e - b * x0;
      });
    },
    random(5, 4),
    { noise: (k) => random(5, 10 + k) },
  );
}

describe('properties', () => {
  // PNDM extrapolates what the model says, so for it ε and v are different methods.
  it.each(SAMPLER_NAMES.filter((name) => name !== 'pndm'))(
    '%s: ε, v and x₀ are three ways to say the same',
    async (name) => {
      for (const spacing of ['leading', 'trailing'] as const) {
        const [e, v, x0] = [
          await runAs('epsilon', name, spacing),
          await runAs('v_prediction', name, spacing),
          await runAs('sample', name, spacing),
        ];
        for (let i = 0; i < 5; i++) {
          expect(v[i]).toBeCloseTo(e[i]!, 9);
          expect(x0[i]).toBeCloseTo(e[i]!, 9);
        }
      }
    },
  );

  const settings = fc.record({
    name: fc.constantFrom(...SAMPLER_NAMES),
    steps: fc.integer({ min: 1, max: 200 }),
    timestep_spacing: fc.constantFrom(...TIMESTEP_SPACINGS),
    prediction_type: fc.constantFrom('epsilon' as const, 'v_prediction' as const),
    karras: fc.boolean(),
  });

  it('timesteps fall, stay in the table, and every run ends in finite numbers of the type it began with', async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.boolean(), async ({ name, steps, karras, ...config }, single) => {
        const sampler: Sampler = createSampler(name, scheduleOf(config), steps, { karras });
        expect(sampler.timesteps.length).toBe(name === 'pndm' && steps > 1 ? steps + 1 : steps);
        for (const [i, t] of sampler.timesteps.entries()) {
          expect(t).toBeGreaterThanOrEqual(0);
          expect(t).toBeLessThanOrEqual(999);
          if (i > 0) expect(t).toBeLessThanOrEqual(sampler.timesteps[i - 1]!);
        }
        const start = single ? Float32Array.from(random(3, 5)) : random(3, 5);
        const before = [...start];
        const end = await runSampler(sampler, (x) => x.map((v) => 0.2 * v), start, { noise: (k) => random(3, k) });
        expect(end.constructor).toBe(start.constructor);
        expect(end.every(Number.isFinite)).toBe(true);
        expect([...start]).toEqual(before);
      }),
      { numRuns: 120 },
    );
  });

  it.each(SAMPLER_NAMES)('%s: a step changes nothing it was given and can be repeated', async (name) => {
    const sampler = createSampler(name, scheduleOf(), 5);
    let state = sampler.start;
    let sample: Float32Array | Float64Array = random(4, 6);
    for (let call = 0; call < 4; call++) {
      const output = random(4, 20 + call);
      const given = [JSON.stringify(state), [...sample], [...output]];
      const first = sampler.step(state, output, sample, random(4, 40));
      const second = sampler.step(state, output, sample, random(4, 40));
      expect([JSON.stringify(state), [...sample], [...output]]).toEqual(given);
      expect(second).toEqual(first);
      [state, sample] = first;
    }
  });
});
