/** How often the page of a run that goes on is written again. */
import { expect, test } from 'vitest';
import { atMostATwentieth } from '../../../train/trainer/live.ts';

test('a page is written when it is asked for, in a twentieth of the time at most', async () => {
  // time passes while a page is written, 300 ms, and between the validations that ask for one
  const clock = { time: 0 };
  const written: number[] = [];
  const page = async () => {
    clock.time += 300;
    written.push(clock.time);
  };
  const offer = atMostATwentieth(page, () => clock.time);
  for (let validation = 1; validation <= 100; validation++) {
    clock.time += 2500;
    await offer();
    expect(300 * written.length).toBeLessThanOrEqual(clock.time / 20);
  }
  // the first after ten seconds, then every third validation: 7.5 s apart where 6 s are asked for
  expect(written.slice(0, 3)).toEqual([10_300, 18_100, 25_900]);
  expect(written).toHaveLength(33);

  // where validations are far apart, each has its page
  const far = { time: 0, pages: 0 };
  const each = atMostATwentieth(
    async () => {
      far.pages++;
    },
    () => far.time,
  );
  for (let i = 0; i < 10; i++) {
    far.time += 20_000;
    await each();
  }
  expect(far.pages).toBe(10);
});
