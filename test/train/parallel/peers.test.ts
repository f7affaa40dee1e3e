/** What processes of one run tell each other: values, wishes to end, failures; each of them ends alike. */
import { expect, test } from 'vitest';
import { UsageError } from '../../../train/cli/command.ts';
import { type Peers, peersOn } from '../../../train/parallel/peers.ts';
import { loopback } from '../../support/loopback.ts';

const each = <T>(size: number, work: (peers: Peers) => Promise<T>): Promise<T[]> =>
  Promise.all(loopback(size).map((transport) => work(peersOn(transport))));
const words = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'went on',
    (error: Error) => error.message,
  );

test('what the first knows, all know; lists of any length come whole', async () => {
  expect(await each(3, (p) => p.share(p.leads ? { folder: 'runs/é' } : undefined))).toEqual(
    Array(3).fill({ folder: 'runs/é' }),
  );
  for (const lists of await each(3, (p) => p.gather(Float32Array.from({ length: p.rank }, (_, i) => p.rank + i))))
    expect(lists.map((x) => [...x])).toEqual([[], [1], [2, 3]]);
  for (const [r, lists] of (await each(2, (p) => p.swap(Float32Array.of(p.rank, p.rank + 0.5)))).entries())
    expect(lists.map((x) => [...x])).toEqual([[0 + r / 2], [1 + r / 2]]);
});

test('one that is asked to end ends all at the same meeting', async () => {
  const seen = await each(3, async (p) => {
    let asked = false;
    p.askBy(() => asked);
    await p.gather(Float32Array.of(1));
    const before = p.stopping;
    asked = p.rank === 2;
    await p.gather(Float32Array.of(1));
    return [before, p.stopping];
  });
  expect(seen).toEqual(Array(3).fill([false, true]));
});

test('a failure of one is told to all in its own words, whatever they were about to do', async () => {
  const seen = await each(3, async (p) => {
    if (p.rank === 2) return p.fail(new UsageError('films: no such folder'));
    return words(p.rank === 0 ? p.share({ a: 1 }) : p.swap(new Float32Array(9)));
  });
  for (const line of seen.slice(0, 2)) expect(line).toMatch(/^process 3 of 3 \(on .+\): films: no such folder$/);
});

test('a failure of all by the same is told as it is', async () => {
  expect(await each(3, (p) => p.fail(new RangeError('step 3: the loss is NaN')))).toEqual(
    Array(3).fill('step 3: the loss is NaN'),
  );
});

test('facts that differ are named with whose they are', async () => {
  const facts = (rank: number) => ({ data: 'd', base: rank === 1 ? 'other' : 'b' });
  for (const line of await each(3, (p) => words(p.agree(facts(p.rank)))))
    expect(line).toMatch(/^process 2 of 3 \(on .+\) has another base than the first: other, there b$/);
  expect(await each(3, (p) => words(p.agree({ data: 'd' })))).toEqual(Array(3).fill('went on'));
});
