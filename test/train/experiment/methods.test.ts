/** `methods.yaml` has every method there is, each once, and leaves the seed and 200 steps to all alike. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { methodNames } from '../../../selora/methods/registry.ts';
import { parseExperiment } from '../../../train/experiment/config.ts';

test('methods.yaml runs each method once', async () => {
  const file = path.join(import.meta.dirname, '../../../train/experiment/methods.yaml');
  const { arms, seeds } = parseExperiment(await readFile(file, 'utf8'));
  expect(arms.map(({ config }) => config.method).sort()).toEqual([...methodNames].sort());
  expect([...new Set(arms.map(({ config }) => config.steps)), ...seeds]).toEqual([200, 1]);
});
