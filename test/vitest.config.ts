import { defineConfig } from 'vitest/config';
import SlowestFirst from './support/slowest-first.ts';

/**
 * Files with a process of their own. The others share one per worker, in which modules are loaded and hot code is
 * compiled once: half of the time of a short file.
 */
const alone = [
  // what they replace or look at is the process's: modules, flags of V8, memory
  'test/badinputs/data.test.ts',
  'test/core/compile.test.ts',
  'test/core/memory.test.ts',
  'test/core/wasm/moving-inputs.test.ts',
  // it counts what lies on the device
  'test/core/webgpu/backend.test.ts',
  // it loses the WebGPU device
  'test/core/webgpu/limits.test.ts',
  'test/selora/methods/toy.long.test.ts',
  'test/train/trainer/device-faults.test.ts',
  'test/train/trainer/many-pictures.long.test.ts',
  'test/train/trainer/nonfinite.test.ts',
  'test/train/trainer/refusals.test.ts',
];
const all = ['test/**/*.test.ts'];
/** Files that are long as a whole (`support/long.ts`); where the long tests are not asked for they are not even loaded. */
const asked = process.env.SELORA_LONG === '1' || process.env.SELORA_SOAK !== undefined;
const long = asked ? [] : ['test/**/*.long.test.ts'];

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  test: {
    pool: 'forks',
    // one more than the cores of a small machine: a worker waits a fifth of its time, for disks and processes
    maxWorkers: 3,
    // tracing makes many short-lived objects: a larger nursery saves a tenth of the time
    execArgv: ['--max-semi-space-size=32'],
    sequence: { sequencer: SlowestFirst },
    // compiled sources, named by their contents, so that the next run and each worker find them
    experimental: {
      fsModuleCache: true,
      fsModuleCachePath: new URL('../node_modules/.cache/vitest', import.meta.url).pathname,
    },
    setupFiles: ['test/support/each-file.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: 'alone', include: alone, exclude: long, isolate: true } },
      { extends: true, test: { name: 'together', include: all, exclude: [...alone, ...long], isolate: false } },
    ],
  },
});
