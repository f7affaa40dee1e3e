/** Settings that belong together: the paper's runs (appendix B) and the built-in one. */
import type { Settings } from './config.ts';

/** What the paper's three runs share. */
const paper = {
  resolution: 224,
  batch: 8,
  lambda: 1.1,
  testEvery: 40,
  guidance: 7.5,
  sampler: 'pndm',
  sampleSteps: 50,
} as const satisfies Settings;

/** Presets by name, for `--preset`. */
export const runPresets = {
  /** about twelve minutes on two cores: few steps need a high rate and timesteps where the words decide */
  phantoms: {
    steps: 2000,
    lr: 1.2e-2,
    textLr: 3e-3,
    schedule: 'cosine',
    warmup: 20,
    testEvery: 20,
    validateEvery: 200,
    timesteps: 'mixed',
    captionDropout: 0.1,
    clip: 1,
    resolution: 128,
    guidance: 2,
  },
  'iu-xray': { ...paper, split: '80/16/4', epochs: 10 },
  montgomery: { ...paper, split: '80/20', epochs: 100 },
  patchgastric: { ...paper, split: '70/10/20', epochs: 10 },
} as const satisfies Record<string, Settings>;
export type PresetName = keyof typeof runPresets;
export const PRESET_NAMES = Object.keys(runPresets) as readonly PresetName[];
