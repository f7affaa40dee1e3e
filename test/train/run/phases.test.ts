/** Where time goes: exclusive times of nested phases add up to the whole. */
import { expect, test } from 'vitest';
import { phaseClock } from '../../../train/run/phases.ts';

test('a phase inside another is charged once; the rest is other', async () => {
  let now = 0;
  const clock = phaseClock(() => now);
  const wait = (ms: number) => {
    now += ms;
  };
  wait(1000);
  await clock.time('outer', async () => {
    wait(2000);
    clock.sync('inner', () => wait(500));
    await clock.time('inner', async () => wait(250));
    wait(1000);
  });
  clock.sync('outer', () => wait(4000));
  await expect(
    clock.time('broken', async () => {
      wait(125);
      throw new Error('stop');
    }),
  ).rejects.toThrow('stop');
  wait(2000);
  const rows = Object.fromEntries(clock.rows().map((r) => [r.name, [r.seconds, r.calls]]));
  expect(rows).toEqual({ outer: [7, 2], inner: [0.75, 2], broken: [0.125, 1], other: [3, 1] });
  expect(clock.rows().map((r) => r.name)).toEqual(['inner', 'outer', 'broken', 'other']);
});
