/** Several candidate columns for one module: scored in one pass, installed in any choice, grown by two ranks at a time. */
import { describe, expect, test } from 'vitest';
import { evaluate, leaves, type Tensor, tensor } from '../../../core/index.ts';
import type { Adapter } from '../../../selora/adapter.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { padAxis } from '../../../selora/pad.ts';
import type { Trial } from '../../../selora/trial.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { testedStep } from '../../../train/step/growth.ts';
import { createSteps, mapModules, networks, type PerModule, paramsOf, type Ranks } from '../../../train/step/step.ts';
import {
  adapters,
  batch,
  candidatesFor,
  chosen,
  configs,
  linears,
  rate,
  stateOf,
  steps,
} from '../../support/step-fixture.ts';

import { base, close, cpu, LR, list } from '../../support/toy-method.ts';

describe('several candidates for one module', () => {
  const a = adapters(2, 'f64');
  const b = batch(3, 5, 'f64');
  const start = () => stateOf(a, 5, cpu);
  /** two columns in ranks 2 and 3, and each of them alone in its own */
  const [first, second] = [candidatesFor(start(), a, 'f64'), candidatesFor(start(), a, 'f64')];
  const row = (rank: number, capacity: number) => Array.from({ length: capacity }, (_, i) => (i === rank ? 1 : 0));
  const columns = async (t: Trial, other: Trial): Promise<Trial> => {
    const [K, L] = [await list(t.K), (await list(other.K)).map((v) => Math.fround(v * 0.5 - 0.1))];
    return {
      K: tensor(
        K.flatMap((v, i) => [v, L[i]!]),
        [K.length, 2],
        'f64',
      ),
      slot: tensor([...row(2, 5), ...row(3, 5)], [2, 5], 'f64'),
    };
  };
  const both = async (): Promise<PerModule<Trial>> => {
    const of = async (n: 'unet' | 'text') =>
      Object.fromEntries(
        await Promise.all(
          Object.entries(first[n]).map(async ([path, t]) => [path, await columns(t, second[n][path]!)] as const),
        ),
      );
    return { unet: await of('unet'), text: await of('text') };
  };
  /** one of both, in the rank it is tried in */
  const alone = async (all: PerModule<Trial>, k: 0 | 1): Promise<PerModule<Trial>> => {
    const host = new Map<Tensor, number[]>();
    for (const n of networks) for (const { K } of Object.values(all[n])) host.set(K, await list(K));
    return mapModules(({ K }: Trial) => {
      const values = host.get(K)!.filter((_, i) => i % 2 === k);
      return { K: tensor(values, [values.length, 1], 'f64'), slot: tensor(row(2 + k, 5), [1, 5], 'f64') };
    }, all);
  };

  test('one pass scores each as it would be alone, and its update is that of the plain step', async () => {
    const p = steps(cpu);
    const all = await both();
    const r = p.tested(start(), base.f64, b, rate(LR, 'f64'), all);
    for (const k of [0, 1] as const) {
      const s = p.tested(start(), base.f64, b, rate(LR, 'f64'), await alone(all, k)).sums;
      for (const n of networks)
        for (const [path, got] of Object.entries(r.sums[n])) {
          const [together, single] = [await list(got.b), await list(s[n][path]!.b)];
          close([together[2 + k]!], [single[2 + k]!], 1e-9, path);
          expect(together[2 + k]).toBeGreaterThan(0);
        }
    }
    const plain = p.plain(start(), base.f64, b, rate(LR, 'f64')).state;
    for (const n of networks)
      for (const [path, slot] of Object.entries(plain[n]))
        for (const [i, t] of leaves<Tensor>(r.state[n][path] as never).entries())
          close(await list(t), await list(leaves<Tensor>(slot as never)[i]!), 1e-9, path);
  });

  test('a method that grows by two ranks at a time gets them, room for two more, and the same function', async () => {
    // where the programs have room for four ranks
    const all = mapModules(
      ({ K }: Trial): Trial => ({ K, slot: tensor([...row(2, 4), ...row(3, 4)], [2, 4], 'f64') }),
      await both(),
    );
    const method: typeof selora = {
      ...selora,
      room: (_c, most) => most + 2,
      growth: {
        ...selora.growth!,
        test: (passes, now) => {
          passes.update(all);
          return async () => ({
            decisions: [],
            memories: now.memories,
            ranks: mapModules((r: number) => r + 2, now.ranks),
            install: (room) =>
              mapModules(({ K, slot }, path, n) => ({ K, slot: evaluate(padAxis(slot, 1, room[n][path]!), cpu) }), all),
          });
        },
      },
    };
    const { settings } = chosen();
    const p = createSteps({ backend: cpu, configs, method, settings, adam: adamDefaults, clip: 0, checkpointBlocks: false }); // biome-ignore format: one line
    const ranks: Ranks = mapModules(() => 2, a);
    const parts = { method, settings, seed: 9, places: linears, programs: p, frozen: base.f64, backend: cpu };
    const step = await testedStep(
      parts,
      { state: stateOf(a, 4, cpu), ranks, memories: {} },
      [b],
      [],
      rate(LR, 'f64'),
      40,
      400,
    );
    const losses = await list(p.losses(paramsOf(step.state), base.f64, b));
    const grown = await step.decide();
    expect(Object.values(grown.ranks.unet).every((r) => r === 4)).toBe(true);
    expect(grown.padded).toBe(true);
    expect(await list(p.losses(paramsOf(grown.state), base.f64, b))).toEqual(losses);
    for (const n of networks)
      for (const [path, slot] of Object.entries(grown.state[n])) {
        expect([slot.p.A.shape[1], slot.p.B.shape[0]]).toEqual([6, 6]);
        const [A, K] = [await list(slot.p.A), await list(all[n][path]!.K)];
        for (let i = 0; i < K.length / 2; i++)
          expect([A[6 * i + 2], A[6 * i + 3], A[6 * i + 4]]).toEqual([K[2 * i], K[2 * i + 1], 0]);
        expect(await list(slot.age)).toEqual([1, 1, 0, 0, 0, 0]);
      }
  });

  test('of two candidates one may be taken: a row of zeros takes the other nowhere', async () => {
    const p = steps(cpu);
    const all = await both();
    const taken = mapModules(
      ({ K }: Trial): Trial => ({ K, slot: tensor([...row(-1, 5), ...row(2, 5)], [2, 5], 'f64') }),
      all,
    );
    const installed = p.install(start(), taken);
    for (const n of networks)
      for (const [path, { p: own }] of Object.entries(installed[n])) {
        const [A, K] = [await list((own as Adapter).A), await list(all[n][path]!.K)];
        for (let i = 0; i < K.length / 2; i++) expect([A[5 * i + 2], A[5 * i + 3]]).toEqual([K[2 * i + 1], 0]);
      }
  });
});
