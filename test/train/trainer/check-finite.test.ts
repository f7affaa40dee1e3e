/** `--check-finite`: a planted NaN is named with op, module, sample and timestep, the same on every backend. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openBackend } from '../../../core/backends/open.ts';
import {
  type Backend,
  evaluate,
  leaves,
  NonFiniteError,
  read,
  readScalar,
  type Tensor,
  tensor,
} from '../../../core/index.ts';
import { textContext } from '../../../models/clip/text-encoder.ts';
import type { Adapter } from '../../../selora/adapter.ts';
import type { Batch, Frozen, State } from '../../../train/step/step.ts';
import { nonFiniteStep } from '../../../train/trainer/non-finite.ts';
import { longRows } from '../../support/long.ts';
import { adapters, batch, configs, frozen, rate, stateOf, steps } from '../../support/step-fixture.ts';

const SIZE = 2;
const base = frozen('f32');
const sample = batch(SIZE, 5, 'f32');
/** the tensor with NaN in the place of one value */
const spoilt = async (t: Tensor, at: number): Promise<Tensor> => {
  const values = Float32Array.from(await read(t));
  values[at] = Number.NaN;
  return tensor(values, t.shape);
};
/** the first value of sample i */
const of = (t: Tensor, i: number): number => i * t.shape.slice(1).reduce((a, b) => a * b, 1);

describe.each(longRows(['cpu', 'wasm', 'webgpu'] as const, (name) => name === 'wasm'))(
  '%s',
  { timeout: 120_000 },
  (name) => {
    let backend: Backend;
    let checked: ReturnType<typeof steps>;
    let fine: Batch;
    beforeAll(async () => {
      backend = await openBackend(name, { threads: 1 });
      checked = steps(backend, { check: 'finite' });
      fine = { ...sample, context: evaluate(textContext(base.text, configs.text, sample.ids), backend) };
    });
    afterAll(() => backend.close());

    /** what a step with these says */
    async function told(state: State<Adapter>, net: Frozen, b: Batch): Promise<string> {
      const error = await readScalar(checked.plain(state, net, b, rate(1e-2, 'f32')).loss).then(
        () => undefined,
        (e: unknown) => e,
      );
      expect(error).toBeInstanceOf(NonFiniteError);
      const inputs = { programs: checked as never, state, frozen: net, batches: [b], backend };
      return (await nonFiniteStep(7, error as NonFiniteError, inputs)).message;
    }
    const start = () => stateOf(adapters(1, 'f32'), 2, backend);
    const says = (what: string) => `step 7: training step: the first value that is not finite is ${what}`;

    test('a weight, of an adapter or of the base', async () => {
      const state = start();
      const [path, slot] = Object.entries(state.unet)[1]!;
      const bad = {
        ...state,
        unet: { ...state.unet, [path]: { ...slot, p: { ...slot.p, B: await spoilt(slot.p.B, 3) } } },
      };
      const { shape } = slot.p.B;
      expect(await told(bad, base, fine)).toBe(
        says(`argument unet.${path}.p.B in unet.${path}: f32[${shape.join(', ')}] at [0, 3]`),
      );
      const { weight } = base.unet.conv_in;
      const net = {
        ...base,
        unet: { ...base.unet, conv_in: { ...base.unet.conv_in, weight: await spoilt(weight, 0) } },
      };
      expect(await told(start(), net, fine)).toBe(
        says(`argument ${weight.label} in conv_in: f32[${weight.shape.join(', ')}] at [0, 0, 0, 0]`),
      );
    });

    test('a latent, a text state, the noise', async () => {
      const timesteps = await read(fine.t);
      const at = (i: number) => `; sample ${i + 1} (timestep ${timesteps[i]}) of ${SIZE}`;
      for (const [field, i] of [
        ['x', 1],
        ['context', 0],
        ['target', 1],
      ] as const) {
        const t = fine[field]!;
        const where = [i, ...t.shape.slice(1).map(() => 0)].join(', ');
        expect(await told(start(), base, { ...fine, [field]: await spoilt(t, of(t, i)) })).toBe(
          says(`argument ${field}: f32[${t.shape.join(', ')}] at [${where}]${at(i)}`),
        );
      }
    });

    test('a value that overflows inside one sample', async () => {
      const huge = Float32Array.from(await read(fine.target)).map((v, k) => (k === of(fine.target, 1) ? 3e38 : v));
      expect(await told(start(), base, { ...fine, target: tensor(huge, fine.target.shape) })).toMatch(
        /made by mul.*: f32\[2, 4, 4, \d+\] at \[1, 0, 0, 0\]; sample 2 \(timestep \d+\) of 2$/,
      );
    });
  },
);

test('a step that is looked at has the bits of one that is not, and leaves its state', async () => {
  const backend: Backend = await openBackend('wasm', { threads: 1 });
  const start = () => stateOf(adapters(1, 'f32'), 2, backend);
  const checked = steps(backend, { check: 'finite' });
  const [plain, looked] = [steps(backend), checked].map((p) => p.plain(start(), base, sample, rate(1e-2, 'f32')));
  const bits = (result: unknown) => Promise.all((leaves(result as Tensor) as Tensor[]).map((t) => read(t)));
  expect(await bits(looked)).toEqual(await bits(plain));
  const state = start();
  await readScalar(checked.plain(state, base, sample, rate(1e-2, 'f32')).loss);
  expect((await bits(state)).length).toBeGreaterThan(10);
  await backend.close();
});
