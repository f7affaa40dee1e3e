/** A step of several processes against the same step of one: the same bits, in any number of processes. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, leaves, openBackend, read, readScalar, type Tensor } from '../../../core/index.ts';
import { inTurns, ownOf, spread } from '../../../train/parallel/means.ts';
import { type Peers, peersOn } from '../../../train/parallel/peers.ts';
import { longRows } from '../../support/long.ts';
import { loopback } from '../../support/loopback.ts';
import '../../support/same-bits.ts';
import { adapters, batch, candidatesFor, frozen, part, rate, stateOf, steps } from '../../support/step-fixture.ts';

const base = frozen('f32');
const a = adapters(2, 'f32');
let backend: Backend;
let cut: ReturnType<typeof part>[];
beforeAll(async () => {
  backend = await openBackend('wasm', { threads: 1 });
  const all = batch(12, 31, 'f32');
  const values = new Map(await Promise.all(Object.values(all).map(async (x) => [x, await read(x)] as const)));
  cut = Array.from({ length: 6 }, (_, i) => part(all, 2 * i, 2 * i + 2, values));
});
afterAll(() => backend.close());

/** the programs of a setting, built once for all processes: they keep nothing between calls */
const built = new Map<string, ReturnType<typeof steps>>();
const programsOf = (criterion?: 'fi-snr') => {
  const known = built.get(`${criterion}`) ?? steps(backend, criterion ? { given: { criterion } } : {});
  built.set(`${criterion}`, known);
  return known;
};
const fresh = () => stateOf(a, 4, backend);
const together = <T>(size: number, work: (peers: Peers) => Promise<T>): Promise<T[]> =>
  Promise.all(loopback(size).map((transport) => work(peersOn(transport))));
const bits = async (tree: unknown): Promise<readonly Float32Array[]> => {
  const out: Float32Array[] = [];
  for (const t of leaves(tree as never) as Tensor[]) out.push(Float32Array.from(await read(t)));
  return out;
};

const COUNTS: readonly (readonly [number, number])[] = [
  [2, 2],
  [2, 3],
  [3, 4],
  [4, 4],
  [4, 2],
];
// with three or more the order of a sum can be told
const short = longRows(COUNTS, ([size, count]) => size + count > 5 && size !== count);
describe.each(short)('%i processes and %i micro-batches', (size, count) => {
  const hyper = rate(1e-2, 'f32');
  test('the update is that of one process, to the bit', async () => {
    const one = programsOf();
    const r = one.accumulated(fresh(), base, cut.slice(0, count), hyper);
    const want = [await bits(r.state), await readScalar(r.loss), await readScalar(r.norm)];
    const got = await together(size, async (peers) => {
      const p = spread(programsOf(), peers, backend);
      const x = await p.accumulated(fresh(), base, cut.slice(0, count), hyper);
      return [await bits(x.state), await readScalar(x.loss), await readScalar(x.norm)];
    });
    for (const each of got) expect(each).toEqual(want);
  });
  test('with a test: update, scores and losses are those of one process, to the bit', async () => {
    const one = programsOf('fi-snr');
    const x = candidatesFor(fresh(), a, 'f32');
    const [own, extra] = [cut.slice(0, count), cut.slice(count)];
    const r = one.accumulated(fresh(), base, own, hyper, x, extra);
    const want = [
      await bits(r.state),
      await bits(r.sums),
      await bits(one.scores(fresh(), base, own, x)),
      await one.trialLoss(fresh(), base, own, x),
      await one.each(fresh(), base, own, x),
    ];
    const got = await together(size, async (peers) => {
      const p = spread(programsOf('fi-snr'), peers, backend);
      const y = await p.accumulated(fresh(), base, own, hyper, x, extra);
      return [
        await bits(y.state),
        await bits(y.sums),
        await bits(await p.scores(fresh(), base, own, x)),
        await p.trialLoss(fresh(), base, own, x),
        await p.each(fresh(), base, own, x),
      ];
    });
    for (const each of got) expect(each).toEqual(want);
  });
});

test('every micro-batch is the work of one process, or of several where there are too few', () => {
  expect([0, 1, 2].map((rank) => ownOf(7, { rank, size: 3 }))).toEqual([
    [0, 3, 6],
    [1, 4, 6],
    [2, 5, 6],
  ]);
  expect([0, 1, 2].map((rank) => ownOf(1, { rank, size: 3 }))).toEqual([[0], [0], [0]]);
});

test('numbers made in turns come in their order', async () => {
  const widths = [2, 0, 1, 3, 1];
  const made: number[] = [];
  const got = await together(3, (peers) => {
    const make = async (i: number) => {
      made.push(i);
      return Array.from({ length: widths[i]! }, (_, k) => 10 * i + k);
    };
    return inTurns(widths, make, peers);
  });
  expect(made.sort()).toEqual([0, 1, 2, 3, 4]);
  for (const each of got) expect(each.map((x) => [...x])).toEqual([[0, 1], [], [20], [30, 31, 32], [40]]);
});
