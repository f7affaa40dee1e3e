import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  cpuBackend,
  mean,
  mul,
  randomOf,
  read,
  seedKey,
  sub,
  subkey,
  type Tensor,
  tensor,
} from '../../../core/index.ts';
import { Interrupted } from '../../../train/cli/command.ts';
import { trainStage, warmCosine } from '../../../train/pretrain/stage.ts';
import { scratch } from '../../support/scratch.ts';

type P = { readonly w: Tensor };
type B = { readonly x: Tensor };

/** Eleven steps of a small problem; Ctrl-C comes in the steps of `stops`. */
const run = (folder: string, stops: ReadonlySet<number>) =>
  trainStage<P, B>({
    name: 'tiny',
    backend: cpuBackend(),
    folder,
    params: { w: tensor(Float32Array.of(1, -2, 3), [3]) },
    steps: 11,
    loss: ({ w }, { x }) => mean(mul(sub(w, x), sub(w, x))),
    batch: (step) => {
      if (stops.has(step)) process.emit('SIGINT', 'SIGINT');
      const r = randomOf(subkey(seedKey(5), step));
      return {
        x: tensor(
          Float32Array.from({ length: 3 }, () => r.normal()),
          [3],
        ),
      };
    },
    lr: warmCosine(0.1, 2, 11),
    adam: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.01, decoupled: true },
    clip: 1,
    ema: 0.9,
  });

const bytes = (folder: string) => readFile(path.join(folder, 'tiny.state.safetensors'));

describe('a stage of pre-training', () => {
  it('stopped three times ends with the same bytes as at one go', async () => {
    const [whole, parts] = [path.join(scratch, 'whole'), path.join(scratch, 'parts')];
    const expected = await read((await run(whole, new Set())).w);
    for (const at of [3, 7, 8]) await expect(run(parts, new Set([at]))).rejects.toThrow(Interrupted);
    const found = await read((await run(parts, new Set())).w);
    expect(found).toEqual(expected);
    expect(await bytes(parts)).toEqual(await bytes(whole));
    // finished: nothing is trained again
    await expect(run(parts, new Set([0]))).resolves.toBeDefined();
    expect(await bytes(parts)).toEqual(await bytes(whole));
  });

  it('follows another course where a step is left out', async () => {
    const [whole, other] = [path.join(scratch, 'one'), path.join(scratch, 'other')];
    await run(whole, new Set());
    await expect(run(other, new Set([3]))).rejects.toThrow('step 4');
    expect(await bytes(other)).not.toEqual(await bytes(whole));
  });

  it('gives the signals back, stopped or ended', async () => {
    const before = process.listenerCount('SIGINT');
    const folder = path.join(scratch, 'signals');
    await expect(run(folder, new Set([1]))).rejects.toThrow(Interrupted);
    expect(process.listenerCount('SIGINT')).toBe(before);
    await run(folder, new Set());
    expect(process.listenerCount('SIGINT')).toBe(before);
  });
});
