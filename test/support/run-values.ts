/** Small deterministic states for the tests of run folders and the processes that they start. */
import type { CheckpointInfo, HostTensor } from '../../train/run/checkpoint.ts';

const made = new Map<string, ReadonlyMap<string, HostTensor>>();

/** A state that depends on every step before it, like a training run's; `size` values in all. Made once for each. */
export function stateAt(step: number, size = 600): ReadonlyMap<string, HostTensor> {
  const key = `${step} ${size}`;
  const state = made.get(key) ?? makeState(step, size);
  // a child may go through hundreds of steps
  if (size > 10_000) made.set(key, state);
  return state;
}

function makeState(step: number, size: number): ReadonlyMap<string, HostTensor> {
  let x = (step * 2654435761) >>> 0;
  const values = (n: number) =>
    Float32Array.from({ length: n }, () => {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      return x / 2 ** 32 - 0.5;
    });
  return new Map([
    ['unet/b/A', { shape: [size / 2, 1], data: values(size / 2) }],
    ['unet/a/B', { shape: [2, size / 4], data: values(size / 2) }],
    ['age', { shape: [], data: Float32Array.of(step) }],
    ['none', { shape: [0, 3], data: new Float32Array(0) }],
  ]);
}

export function infoAt(step: number): CheckpointInfo {
  return { step, ranks: { 'unet/a': 1 + step, 'unet/b': 2 }, best: step === 0 ? null : { loss: -1 / 3 / step } };
}

/** The same content in the same order: names, shapes and bits. */
export function sameState(a: ReadonlyMap<string, HostTensor>, b: ReadonlyMap<string, HostTensor>): boolean {
  const sorted = (state: ReadonlyMap<string, HostTensor>) => [...state].sort(([x], [y]) => (x < y ? -1 : 1));
  const bytes = ({ data }: HostTensor) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const others = sorted(b);
  return (
    a.size === b.size &&
    sorted(a).every(([name, tensor], i) => {
      const [otherName, other] = others[i]!;
      return name === otherName && `${tensor.shape}` === `${other.shape}` && bytes(tensor).equals(bytes(other));
    })
  );
}
