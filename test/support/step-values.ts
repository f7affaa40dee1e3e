/** The values of a step's state by field and rank, and the loss as the paper writes it: what its tests compare. */
import { expect } from 'vitest';
import { cpuBackend, mean, mul, read, sub, type Tensor } from '../../core/index.ts';
import { textEncoder } from '../../models/clip/text-encoder.ts';
import { unet } from '../../models/unet/index.ts';
import type { Adapter, Adapters } from '../../selora/adapter.ts';
import { attach } from '../../selora/attach.ts';
import type { Trial } from '../../selora/trial.ts';
import {
  type Batch,
  type Frozen,
  networks,
  type PerModule,
  type PerNetwork,
  type Slot,
  type State,
} from '../../train/step/step.ts';
import { configs, frozen, steps } from './step-fixture.ts';

export const cpu = cpuBackend();
export const SCALE = 0.8;
export const base = { f32: frozen('f32'), f64: frozen('f64') };
export const plain = steps(cpu);
export const LR = 1e-2;

export type Candidates = PerModule<Trial>;
export type Numbers = { readonly [field in 'A' | 'B' | 'mA' | 'vA' | 'mB' | 'vB' | 'age']: Float64Array };
export const modules = (s: State<Adapter>): [string, Slot<Adapter>][] =>
  networks.flatMap((n) => Object.entries(s[n]).map(([p, slot]): [string, Slot<Adapter>] => [`${n} ${p}`, slot]));
export async function valuesOf(s: State<Adapter>): Promise<Map<string, Numbers>> {
  const out = new Map<string, Numbers>();
  for (const [name, slot] of modules(s)) {
    const of = async (t: Tensor) => Float64Array.from(await read(t));
    const { p, m, v, age } = slot;
    out.set(name, {
      A: await of(p.A),
      B: await of(p.B),
      mA: await of(m.A),
      vA: await of(v.A),
      mB: await of(m.B),
      vB: await of(v.B),
      age: await of(age),
    });
  }
  return out;
}
/** rank r of a wide [d, c] or tall [c, d] field */
export const column = (x: Float64Array, capacity: number, r: number) => x.filter((_, i) => i % capacity === r);
export const row = (x: Float64Array, width: number, r: number) => x.slice(r * width, (r + 1) * width);
export const wide = ['A', 'mA', 'vA'] as const;
export const tall = ['B', 'mB', 'vB'] as const;

/** the loss as the paper writes it, on unpadded adapters; nothing of step.ts */
export function reference(a: PerNetwork<Adapters>, b: Batch, frozenBase: Frozen): Tensor {
  const context = textEncoder(attach(frozenBase.text, a.text, SCALE), configs.text, b.ids).lastHiddenState;
  const d = sub(unet(attach(frozenBase.unet, a.unet, SCALE), configs.unet, b.x, b.t, context), b.target);
  return mean(mul(mean(mul(d, d), [1, 2, 3]), b.weight));
}
export const close = (got: ArrayLike<number>, want: ArrayLike<number>, relative: number, what: string) => {
  expect(got.length, what).toBe(want.length);
  const size = Math.max(1e-30, ...Array.from(want, Math.abs));
  let worst = 0;
  for (let i = 0; i < want.length; i++) worst = Math.max(worst, Math.abs(got[i]! - want[i]!) / size);
  expect(worst, what).toBeLessThanOrEqual(relative);
};
