/**
 * A WebGPU device that fails at any call: the run ends with one line and its last checkpoint, which a new device goes on
 * from to the same bits; or the fault changed nothing. Never a silent zero, never a wait without end.
 */
import { existsSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { webgpuBackend } from '../../../core/backends/webgpu/index.ts';
import { add, compile, dot, grad, mean, mul, read, readScalar, sub, type Tensor, tensor } from '../../../core/index.ts';
import { errorLine } from '../../../train/cli/command.ts';
import { type HostTensor, loadCheckpoint, saveCheckpoint } from '../../../train/run/checkpoint.ts';
import { createRun, openRun } from '../../../train/run/folder.ts';
import { arm, callsOf, DEVICE_FAULTS, type DeviceFault, spoilDevices, struck } from '../../support/device-faults.ts';
import { casesOf, patience, scattered } from '../../support/drivers.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { sameState } from '../../support/run-values.ts';

const scratch = scratchFolder();
const fresh = () => join(mkdtempSync(join(scratch, 'x-')), 'run');
const STEPS = 8;
const POINTS = 25;
/** well above what the slowest case needs */
const HANG_MS = 60_000;

type State = { readonly w: Tensor; readonly m: Tensor };
const wave = (n: number, seed: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 1.7 + seed));
const step = ({ w, m }: State, x: Tensor) => {
  const loss = (p: Tensor) => mean(mul(dot(x, p), dot(x, p)));
  const moment = add(mul(m, 0.9), grad(loss)(w));
  return [{ w: sub(w, mul(moment, 0.01)), m: moment }, loss(w)] as const;
};

/** A trainer in small: goes on from its checkpoint, saves every second step. @returns its state at the end */
async function train(folder: string): Promise<ReadonlyMap<string, HostTensor>> {
  const run = existsSync(join(folder, 'config.json')) ? (await openRun(folder)).run : await createRun(folder, {});
  try {
    const backend = await webgpuBackend();
    try {
      const saved = await loadCheckpoint(run, (line) => expect.unreachable(line));
      const start = (name: string) =>
        tensor((saved?.tensors.get(name)?.data ?? wave(48, 2)) as Float32Array, [1, 8, 6]);
      let state: State = { w: start('w'), m: start('m') };
      const update = compile(step, { backend, donate: [0] });
      const host = async (t: Tensor): Promise<HostTensor> => ({
        shape: t.shape,
        data: (await read(t)) as Float32Array,
      });
      const tensors = async () => new Map([['w', await host(state.w)] as const, ['m', await host(state.m)] as const]);
      for (let n = (saved?.info.step ?? 0) + 1; n <= STEPS; n++) {
        const [next, loss] = update(state, tensor(wave(32, n), [1, 4, 8]));
        state = next;
        if (!Number.isFinite(await readScalar(loss))) throw new RangeError(`step ${n}: the loss is not finite`);
        if (n % 2 === 0) await saveCheckpoint(run, await tensors(), { step: n });
      }
      return await tensors();
    } finally {
      await backend.close();
    }
  } finally {
    await run.close();
  }
}

/** Checkpoint of each saved step, state at the end, and calls of each kind, of a run whose device does not fail. */
let right: { readonly saved: ReadonlyMap<number, ReadonlyMap<string, HostTensor>>; readonly calls: typeof calls };
const calls = new Map<DeviceFault['at'], number>();
beforeAll(async () => {
  await spoilDevices();
  const saved = new Map<number, ReadonlyMap<string, HostTensor>>();
  const folder = fresh();
  arm();
  saved.set(STEPS, await train(folder));
  for (const { at } of DEVICE_FAULTS) calls.set(at, callsOf(at));
  right = { saved, calls };
}, 60_000);

/** One run with a fault at the nth call, and the run that goes on from what it left. */
async function fail(fault: DeviceFault, n: number, deaf = false): Promise<'ended' | 'unharmed'> {
  const folder = fresh();
  const about = `${fault.name}, call ${n}`;
  arm(fault, n, deaf);
  const outcome = await Promise.race([
    train(folder).then(
      (state) => ({ state }),
      (error: unknown) => ({ error }),
    ),
    sleep(HANG_MS, { hangs: true }, { ref: false }),
  ]);
  expect('hangs' in outcome, `${about}: hangs`).toBe(false);
  // buffers are used again when garbage collection has found them, so a run may make fewer calls than the first one
  if (!struck() && n > 1) return fail(fault, Math.floor(n * 0.9), deaf);
  expect(struck(), `${about}: never met`).toBe(true);
  if ('error' in outcome) {
    const line = errorLine(outcome.error);
    expect(line, about).toMatch(/^[^\n]+$/);
    expect(line, about).not.toContain('SELORA_DEBUG');
  } else if ('state' in outcome)
    expect(sameState(outcome.state, right.saved.get(STEPS)!), `${about}: another result, and no word of it`).toBe(true);
  arm();
  const after = await train(folder);
  expect(sameState(after, right.saved.get(STEPS)!), `${about}: another result after going on`).toBe(true);
  return 'error' in outcome ? 'ended' : 'unharmed';
}

const cases = DEVICE_FAULTS.flatMap((fault) =>
  Array.from({ length: POINTS }, (_, i) => ({ fault, at: (i + 0.5) / POINTS })),
);
const callAt = ({ at }: DeviceFault, share: number): number => 1 + Math.floor(share * right.calls.get(at)!);

describe('a device that fails', () => {
  test('is told in one line, and the run goes on to the same bits', {
    timeout: patience('device', 240_000),
  }, async () => {
    expect(cases).toHaveLength(300);
    let ended = 0;
    for (const { fault, at } of scattered(cases, casesOf('device')))
      if ((await fail(fault, callAt(fault, at))) === 'ended') ended++;
    expect(ended).toBeGreaterThan(0);
  });
  test('would be found out if nobody listened', { timeout: 60_000 }, async () => {
    const lostValues = DEVICE_FAULTS.find(({ at }) => at === 'writeBuffer')!;
    await expect(fail(lostValues, callAt(lostValues, 0.7), true)).rejects.toThrow(/another result/);
  });
});
