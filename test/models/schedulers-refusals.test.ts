import { describe, expect, it } from 'vitest';
import {
  addNoise,
  createSampler,
  makeSchedule,
  parseSchedulerConfig,
  runSampler,
  type SchedulerSettings,
} from '../../models/schedulers/index.ts';

const SD = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', steps_offset: 1 } as const;
const scheduleOf = (settings: SchedulerSettings = {}) => makeSchedule(parseSchedulerConfig({ ...SD, ...settings }));
const random = (n: number, seed: number) =>
  Float64Array.from({ length: n }, (_, i) => 2 * Math.sin(12.9898 * (i + 1) * (seed + 1)) ** 3);

describe('mistakes', () => {
  it.each([
    [{ beta_schedule: 'quux' }, /^s\.json: beta_schedule: .*scaled_linear.*"quux"/],
    [{ prediction_type: 'wish' }, /^s\.json: prediction_type: .*v_prediction.*"wish"/],
    [{ num_train_timesteps: 0 }, /^s\.json: num_train_timesteps: /],
    [{ num_train_timesteps: 1e12 }, /^s\.json: num_train_timesteps: /],
    [{ num_train_timesteps: 2.5 }, /^s\.json: num_train_timesteps: /],
    [{ beta_start: 0.02, beta_end: 0.001 }, /^s\.json: beta_start: .*beta_end 0\.001.*0\.02/],
    [{ beta_end: 1.5 }, /^s\.json: beta_end: /],
    [{ beta_start: '0.1' }, /^s\.json: beta_start: /],
    [{ trained_betas: [0.1, 0.2] }, /^s\.json: trained_betas: .*1000.*2$/],
    [{ timestep_spacing: 'even' }, /^s\.json: timestep_spacing: /],
    [{ rescale_betas_zero_snr: true, num_train_timesteps: 1 }, /^s\.json: rescale_betas_zero_snr: /],
    [{ thresholding: true }, /^s\.json: thresholding: /],
    [{ skip_prk_steps: false }, /^s\.json: skip_prk_steps: /],
    [null, /^s\.json: /],
    [[], /^s\.json: /],
  ])('config %j', (change, message) => {
    const json = change === null || Array.isArray(change) ? change : { ...SD, ...change };
    expect(() => parseSchedulerConfig(json, 's.json')).toThrow(message);
    try {
      parseSchedulerConfig(json, 's.json');
    } catch (error) {
      expect((error as Error).message).not.toContain('\n');
    }
  });

  it('takes the file that SD 1.5 ships, with keys it does not know', () => {
    const config = parseSchedulerConfig({
      _class_name: 'PNDMScheduler',
      _diffusers_version: '0.6.0',
      ...SD,
      clip_sample: false,
      num_train_timesteps: 1000,
      set_alpha_to_one: false,
      skip_prk_steps: true,
      trained_betas: null,
    });
    expect(config).toMatchObject({ prediction_type: 'epsilon', timestep_spacing: 'leading', set_alpha_to_one: false });
  });

  it('steps, names, options and lengths', async () => {
    const schedule = scheduleOf();
    for (const steps of [0, -1, 1.5, 1001, Number.NaN])
      expect(() => createSampler('ddim', schedule, steps)).toThrow(/steps: expected a whole number from 1 to 1000/);
    expect(() => createSampler('toString', schedule, 5)).toThrow(/sampler: expected one of ddim, pndm, .*"toString"/);
    expect(() => createSampler('ddim', schedule, 5, { eta: 2 })).toThrow(/eta: .*2/);
    expect(() => createSampler('ddim', schedule, 1000)).toThrow(/steps_offset: 1 makes timestep 1000/);
    expect(() => createSampler('pndm', scheduleOf({ prediction_type: 'sample' }), 5)).toThrow(/prediction_type/);
    const zero = scheduleOf({ rescale_betas_zero_snr: true, timestep_spacing: 'trailing' });
    expect(() => createSampler('ddim', zero, 10)).toThrow(/v_prediction/);
    expect(() => addNoise(schedule, random(4, 1), random(4, 2), [1000])).toThrow(/timestep 1000: .*0 to 999/);
    expect(() => addNoise(schedule, random(4, 1), random(3, 2), [1])).toThrow(/4 and 3 values/);
    const ddpm = createSampler('ddpm', schedule, 5);
    await expect(runSampler(ddpm, (x) => x, random(4, 1))).rejects.toThrow(/ddpm needs noise/);
    const ddim = createSampler('ddim', schedule, 5);
    await expect(runSampler(ddim, () => random(3, 1), random(4, 1))).rejects.toThrow(/3 values, the sample 4/);
  });
});
