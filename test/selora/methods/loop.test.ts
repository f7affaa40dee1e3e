/** Every method in the training loop on tiny networks: it learns, and it goes on from a checkpoint to the bit. */
import { describe, expect, test } from 'vitest';
import { entries, readScalar, type Tensor, type Tree } from '../../../core/index.ts';
import { METHODS } from '../../../selora/methods/index.ts';
import { type Field, type Method, mapFields } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { adamDefaults } from '../../../train/optimise/optimizer.ts';
import { stateFrom, stateTensors } from '../../../train/run/tensors.ts';
import { lookedAt } from '../../../train/step/begin.ts';
import { memoriesSchema, testedStep } from '../../../train/step/growth.ts';
import { startState } from '../../../train/step/ranks.ts';
import { createSteps, hyperOf, networks, type Ranks, type State } from '../../../train/step/step.ts';
import { cpu, numbers } from '../../support/gradcheck.ts';
import { batch, configs, frozen, linears } from '../../support/step-fixture.ts';

const [SEED, STEPS] = [9, 6];
const base = frozen('f32');
const first = (n: 'unet' | 'text', pattern: RegExp, most: number) =>
  new Map([...linears[n]].filter(([path]) => pattern.test(path)).slice(0, most));
const places = { unet: first('unet', /to_q$|to_k$/, 4), text: first('text', /fc1$|q_proj$/, 2) };

type Standing = {
  readonly state: State;
  readonly ranks: Ranks;
  readonly memories: { readonly [name: string]: unknown };
};

describe.each(METHODS.map((m): [string, Method] => [m.name, m as Method]))('%s', (_name, method) => {
  const asked = { rank: 2, testEvery: 2, budgetWarmup: 1, budgetFinal: 2, budgetEvery: 2 };
  const settings = settingsOf(method, Object.fromEntries(Object.entries(asked).filter(([k]) => k in method.settings)));
  const programs = createSteps({ backend: cpu, configs, method, settings, adam: adamDefaults, clip: 1, checkpointBlocks: false }); // biome-ignore format: one line
  const parts = { method, settings, seed: SEED, steps: STEPS, places, programs, frozen: base, backend: cpu };
  /** steps `from` + 1 … `to` as `train.ts` makes them */
  const run = async (start: Standing, from: number, to: number) => {
    let now = start;
    const losses: number[] = [];
    for (let step = from + 1; step <= to; step++) {
      const hyper = hyperOf(method, { unet: 1e-2, text: 1e-2 }, SEED, step, STEPS);
      const batches = [batch(2, 5, 'f32')];
      if (method.growth?.due(settings, step, STEPS)) {
        const t = await testedStep(parts, now, batches, [], hyper, step, STEPS);
        losses.push(await readScalar(t.loss));
        now = await t.decide();
      } else {
        const t = programs.plain(now.state, base, batches[0]!, hyper);
        losses.push(await readScalar(t.loss));
        now = { ...now, state: t.state };
      }
    }
    return { now, losses };
  };
  const looked = lookedAt({ ...parts, seed: SEED }, { configs, checkpointBlocks: false, backend: cpu }, places, base, [
    batch(2, 5, 'f32'),
  ]);
  const begin = async (): Promise<Standing> => ({ ...startState(parts, places, cpu, await looked), memories: {} });
  const bits = async (s: State) => new Map([...(await stateTensors(s))].map(([name, t]) => [name, [t.shape.join(), ...t.data].join()])); // biome-ignore format: one line

  test('six steps lower the loss, move what is trained, and from a checkpoint they are the same to the bit', async () => {
    const before = await bits((await begin()).state);
    const half = await run(await begin(), 0, 3);
    // a checkpoint: the tensors, ranks and memories as JSON
    const tensors = await stateTensors(half.now.state);
    const { ranks, memories } = JSON.parse(JSON.stringify({ ranks: half.now.ranks, memories: half.now.memories }));
    const whole = await run(half.now, 3, STEPS);
    const resumed = await run(
      { state: stateFrom(parts, tensors, ranks, places), ranks, memories: memoriesSchema(method).parse(memories) },
      3,
      STEPS,
    );
    expect(resumed.losses).toEqual(whole.losses);
    const [a, b] = [await bits(whole.now.state), await bits(resumed.now.state)];
    expect(b).toEqual(a);
    expect(whole.losses.at(-1)!).toBeLessThan(half.losses[0]!);
    const fields = entries<Field>(method.fields([1, 1], 1, settings));
    const trained = fields.filter(([, f]) => f.trained).map(([name]) => name);
    for (const name of trained)
      expect([...a].some(([key, text]) => key.endsWith(`|${name}`) && text !== before.get(key)), name).toBe(true); // biome-ignore format: one line
  });

  if (!entries<Field>(method.fields([1, 1], 1, settings)).some(([, f]) => f.tied && f.trained)) return;
  test('tied fields are one and the same in all modules of a network', async () => {
    const { now } = await run(await begin(), 0, 2);
    const shared = new Map<string, readonly number[]>();
    for (const n of networks)
      for (const { p } of Object.values(now.state[n]))
        await Promise.all(
          mapFields(
            async (x: Tensor, { tied, trained }, name) => {
              if (!tied || !trained) return;
              const values = await numbers(x);
              const key = `${n} ${name} ${x.shape.join()}`;
              if (shared.has(key)) expect(values).toEqual(shared.get(key));
              shared.set(key, values);
            },
            p as Tree<Tensor>,
            method.fields([1, 1], 1, settings),
          ),
        );
  });
});
