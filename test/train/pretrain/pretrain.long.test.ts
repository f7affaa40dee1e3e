import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect } from 'vitest';
import { main as pretrain } from '../../../train/pretrain.ts';
import { runCommand } from '../../support/commands.ts';
import { longTest } from '../../support/long.ts';
import { scratch } from '../../support/scratch.ts';

const steps = [
  '--vae-steps',
  '4',
  '--text-steps',
  '4',
  '--phase1-steps',
  '4',
  '--phase2-steps',
  '2',
  '--phase3-steps',
  '2',
  '--decoder-steps',
  '2',
];
const make = (name: string) =>
  runCommand(pretrain, [
    ...['--work', path.join(scratch, name, 'work'), '--out', path.join(scratch, name, 'base')],
    ...['--pictures', '6', '--gate', '2', '--threads', '1', ...steps],
  ]);
const weights = (name: string) =>
  Promise.all(
    ['unet/diffusion_pytorch_model', 'vae/diffusion_pytorch_model', 'text_encoder/model'].map((file) =>
      readFile(path.join(scratch, name, 'base', `${file}.safetensors`)),
    ),
  );

/** Ctrl-C as soon as the n-th stage of this process listens for it. */
async function stopStage(n: number, over: AbortSignal): Promise<void> {
  const before = process.listenerCount('SIGINT');
  let [seen, busy] = [0, false];
  while (!over.aborted && seen < n) {
    await sleep(1);
    const now = process.listenerCount('SIGINT') > before;
    if (now && !busy) seen++;
    busy = now;
  }
  if (!over.aborted) process.emit('SIGINT', 'SIGINT');
}

describe('npm run pretrain', () => {
  longTest(
    'stopped in three stages and begun again writes the same bytes as at one go',
    { timeout: 600_000 },
    async () => {
      const whole = await make('whole');
      // four steps make no base: its gates say so, one line each, after it was written
      expect(whole.code).toBe(1);
      expect(whole.stderr).toBe('not every gate is passed\n');
      expect(whole.stdout).toMatch(/MISSED {2}autoencoder, unseen films, dB: [\d.]+ \(≥ 33\)/);
      // what was finished is not listened for again, so the n-th attempt's own stages are counted from where it goes on
      for (const stage of [1, 2, 3]) {
        const over = new AbortController();
        const [outcome] = await Promise.all([
          make('parts').finally(() => over.abort()),
          stopStage(stage === 1 ? 1 : 2, over.signal),
        ]);
        expect([outcome.code, outcome.stderr]).toEqual([130, expect.stringMatching(/stopped and saved at step \d/)]);
      }
      expect((await make('parts')).code).toBe(1);
      expect(await weights('parts')).toEqual(await weights('whole'));
    },
  );
});
