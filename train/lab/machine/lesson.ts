/** Runs a lesson: its program with the core's functions by name, and what it showed and checked. */
import * as core from '../../../core/index.ts';
import { type Backend, evaluate, read, type Tensor, tensor } from '../../../core/index.ts';
import { isTensor } from '../../../core/ir/tree.ts';
import {
  addNoise,
  alphaBar,
  makeSchedule,
  parseSchedulerConfig,
  trainingTarget,
} from '../../../models/schedulers/index.ts';
import { hostKey, kaimingUniform } from '../../../selora/adapter.ts';
import { expandAdapter } from '../../../selora/expand.ts';
import { fisherScore } from '../../../selora/fisher.ts';
import { inSource } from './function.ts';
import { type Numbers, numbersOf } from './numbers.ts';

/** Something a lesson found, or held itself to. */
export type Found =
  | { readonly kind: 'shown'; readonly name: string; readonly value: Numbers }
  | {
      readonly kind: 'checked';
      readonly name: string;
      readonly off: number;
      readonly allowed: number;
      readonly ok: boolean;
    };

/** beside the core's: what lessons are about */
const others = {
  addNoise,
  alphaBar,
  expandAdapter,
  fisherScore,
  hostKey,
  kaimingUniform,
  makeSchedule,
  parseSchedulerConfig,
  trainingTarget,
};
const named = [
  ...Object.entries(core).filter(([name, x]) => typeof x === 'function' && /^[a-z]/.test(name)),
  ...Object.entries(others),
];
const AsyncFunction = (async () => undefined).constructor as new (
  ...parts: readonly string[]
) => (...args: readonly unknown[]) => Promise<void>;

/** Runs a lesson's program on a backend. @throws Error with the line in the source */
export async function runLesson(backend: Backend, source: string): Promise<readonly Found[]> {
  const found: Found[] = [];
  const shown: Promise<void>[] = [];
  const values = async (t: Tensor) => Float32Array.from(await read(evaluate(t, backend)));
  const show = (name: string, value: Tensor): void => {
    const at = found.push({ kind: 'shown', name, value: { shape: [], dtype: 'f32', values: [] } }) - 1;
    shown.push(
      numbersOf([value], backend).then(([numbers]) => {
        found[at] = { kind: 'shown', name, value: numbers! };
      }),
    );
  };
  const check = async (name: string, got: Tensor, want: Tensor | number, allowed: number): Promise<void> => {
    const [a, b] = await Promise.all([got, isTensor(want) ? want : tensor(want)].map(values));
    if (a!.length !== b!.length) throw new core.CoreError(`check "${name}": ${a!.length} numbers against ${b!.length}`);
    // NaN is off by anything
    const off = a!.reduce(
      (most, x, i) => (x === b![i] ? most : Math.max(most, Math.abs(x - b![i]!) || Number.POSITIVE_INFINITY)),
      0,
    );
    found.push({ kind: 'checked', name, off, allowed, ok: off <= allowed });
  };
  const run = inSource(
    () =>
      new AsyncFunction(
        ...named.map(([name]) => name),
        'show',
        'check',
        'values',
        `'use strict';{${source}\n}\n//# sourceURL=your-function.js`,
      ),
  );
  try {
    await run(...named.map(([, f]) => f), show, check, values);
  } catch (error) {
    inSource(() => {
      throw error;
    });
  }
  await Promise.all(shown);
  return found;
}
